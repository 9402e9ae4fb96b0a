"""What a bundle carries beside wheels and model: start script and Dockerfile."""
