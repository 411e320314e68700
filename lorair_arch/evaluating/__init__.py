"""`lorair evaluate`: scores anybody's folders of results by a published way of measuring."""
