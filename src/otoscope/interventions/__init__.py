"""What is seen only by changing a model and running it again, or by its gradients."""
