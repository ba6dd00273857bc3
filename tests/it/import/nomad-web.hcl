# A job with a scaling block in its group.
job "web" {
  datacenters = ["dc1"]
  group "front" {
    count = 3
    scaling {
      enabled = true
      min     = 2
      max     = 15
      policy {
        cooldown            = "1m"
        evaluation_interval = "15s"
        check "sessions" {
          source = "prometheus"
          query  = "sum(haproxy_server_current_sessions{proxy=\"web\"}) / 3"
          strategy "target-value" {
            target         = 20
            max_scale_up   = 4
            max_scale_down = 1
          }
        }
      }
    }
    task "server" {
      driver = "docker"
      config {
        image = "example/web:1.4"
        args  = ["-listen", ":${NOMAD_PORT_http}"]
      }
      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
