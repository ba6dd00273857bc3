scaling "tiers" {
  min = 1
  max = 10
  policy {
    cooldown             = "2m"
    cooldown_on_scale_up = "30s"
    on_check_error       = "fail"
    check "busy" {
      source = "nomad-apm"
      query  = "avg_cpu-allocated"
      group  = "cpu"
      strategy "threshold" {
        lower_bound = 70
        delta       = 2
      }
    }
    check "idle" {
      source = "nomad-apm"
      query  = "avg_cpu-allocated"
      group  = "cpu"
      strategy "threshold" {
        upper_bound = 30
        percentage  = -25
      }
    }
    check "floor" {
      strategy "fixed-value" {
        value = 2
      }
    }
    check "wanted" {
      source = "prometheus"
      query  = "wanted_workers"
      strategy "pass-through" {}
    }
    target "nomad" {
      Job   = "crunch"
      Group = "workers"
    }
  }
}
