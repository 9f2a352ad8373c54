// Reads a Nomad job as Nomad does, and prints it as Nomad's API takes it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/nomad/jobspec2"
)

func main() {
	body, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{
		Path: os.Args[1], Body: body, Strict: true,
	})
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(job); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
