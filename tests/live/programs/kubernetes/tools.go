//go:build tools

// Package lab names the programs that `go build` makes here; it holds no code of its own.
package lab

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
)
