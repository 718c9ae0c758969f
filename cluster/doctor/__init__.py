"""What is wrong with a node or a cluster, found by looking only: nothing here changes anything."""
