"""What stands between the network and Gradio: an ASGI layer that refuses what the page does not need. Knows no tab and no model."""
