"""The page: what a person sees of Bitune. It may import bitune; bitune never imports it.

Gradio and huggingface_hub read these switches when they are imported, so they are set before any other line of this package.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
