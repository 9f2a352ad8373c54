# A snapshot from each client of a Nomad cluster, once, on every node that there is:
#
#   nomad job run docs/fleet/nomad.hcl
#
# The file is on each node then, under the node's name. It needs the driver raw_exec, since only a
# process of the host's, as root, can enter the network namespaces of sidecars.
job "meshdoctor-snapshot" {
  datacenters = ["*"]
  type        = "sysbatch"

  group "snapshot" {
    # A node without any part of a mesh ends with exit code 3: trying again changes nothing.
    restart {
      attempts = 0
      mode     = "fail"
    }

    task "snapshot" {
      driver = "raw_exec"

      config {
        command = "/opt/meshdoctor/bin/meshdoctor"
        args = [
          "snapshot", "--force",
          "-o", "/var/lib/meshdoctor/${node.unique.name}.tgz",
        ]
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
