"""Model classes of BasicSR: the three stages."""

import basicsr  # noqa: F401  (which registers them: before any of them is being imported)
