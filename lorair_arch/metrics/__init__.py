"""Metrics, and how images are measured by them."""

# Those of this package, by their modules: they work without BasicSR, and are in its registry where it is installed.
OWN = {
    'calculate_psnr_allweather': 'allweather_metric',
    'calculate_ssim_allweather': 'allweather_metric',
    'calculate_lpips': 'lpips_metric',
    'calculate_psnr_skimage': 'skimage_metric',
    'calculate_ssim_skimage': 'skimage_metric',
}
