"""The page: what a person sees of Bitune. It may import bitune; bitune never imports it.

Gradio and huggingface_hub read these switches when they are imported, so they are set before any other line of this package.
"""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Else Gradio makes a pandas table of the last 10,000 events after each event, for a dashboard that is closed here.
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"
