"""What the microk8s snap does around the Kubernetes daemons, as far as the sandbox needs it."""
