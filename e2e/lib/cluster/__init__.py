"""The stories in real pods of a real Kubernetes. Read in this order: kubernetes (how a cluster is asked), world
(the cluster, two clouds on the node's address, the release), shop (a story's namespace), then the stories."""
