"""Where the page is hosted: Spaces, ZeroGPU, containers, replicas behind a proxy."""
