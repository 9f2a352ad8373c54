//go:build tools

// Package lab names the program that `go build` makes here; it holds no code of its own.
package lab

import _ "github.com/hashicorp/consul"
