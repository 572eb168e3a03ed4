// What holds the namespaces of a pod, for tests. Built by ../full.
module weft.test/kubernetes/pause

go 1.24.0
