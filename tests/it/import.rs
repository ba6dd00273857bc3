//! `setpoint import`: each source's samples become policies that check, whose specs hold and that can be simulated; what
//! cannot be carried over is told; bad and hostile input ends in an error that says where.

use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;
use setpoint::import::{Options, Source, import};

use crate::support::{Scratch, command, setting, tool};

/// Source, file, the policy's name, text, and the most that its metric is simulated with.
const SAMPLES: &[(&str, &str, &str, &str, u32)] = &[
    ("hpa", "php-apache.yaml", "php-apache", include_str!("import/php-apache.yaml"), 300),
    ("hpa", "shop.yaml", "shop", include_str!("import/shop.yaml"), 900),
    ("hpa", "rabbits.yaml", "rabbits", include_str!("import/rabbits.yaml"), 900),
    ("keda", "keda-cpu-memory.yaml", "keda-cpu-memory", include_str!("import/keda-cpu-memory.yaml"), 600),
    ("keda", "keda-prometheus.yaml", "keda-prometheus", include_str!("import/keda-prometheus.yaml"), 1500),
    ("keda", "keda-redis.yaml", "keda-redis", include_str!("import/keda-redis.yaml"), 120),
    ("keda", "keda-cron.yaml", "keda-cron", include_str!("import/keda-cron.yaml"), 10),
    ("keda", "keda-metrics-api.yaml", "keda-metrics-api", include_str!("import/keda-metrics-api.yaml"), 60),
    ("nomad", "nomad-web.hcl", "front", include_str!("import/nomad-web.hcl"), 160),
    ("nomad", "nomad-tiers.hcl", "tiers", include_str!("import/nomad-tiers.hcl"), 400),
    ("nomad", "nomad-api.json", "8f0", include_str!("import/nomad-api.json"), 16),
    ("relay", "relay.env", "Demo-Framework", include_str!("import/relay.env"), 30),
    ("relay", "relay.sh", "relay", include_str!("import/relay.sh"), 30),
    ("relay", "relay-marathon.json", "infra-relay-bash", include_str!("import/relay-marathon.json"), 30),
    ("gocd-mesos", "gocd-mesos.conf", "gocd-agents", include_str!("import/gocd-mesos.conf"), 5),
];

fn source(name: &str) -> Source {
    match name {
        "relay" => Source::Relay,
        "gocd-mesos" => Source::GocdMesos,
        "hpa" => Source::Hpa,
        "keda" => Source::Keda,
        _ => Source::Nomad,
    }
}

/// Exit code, standard output and standard error.
fn run(scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(scratch).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn json(scratch: &Scratch, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(scratch, arguments);
    assert_eq!(code, Some(0), "{arguments:?}\n{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// All samples in the folder `policies`.
fn imported(scratch: &Scratch) {
    for (source, file, name, text, _) in SAMPLES {
        scratch.write(file, text);
        let value = json(scratch, &["import", source, file, "--output", "policies", "--json"]);
        assert_eq!(value["policies"][0]["name"], *name, "{file}");
        assert_eq!(value["policies"][0]["files"][1], format!("policies/{name}_test.lua"), "{file}");
    }
}

#[test]
fn samples_of_every_source_check_hold_their_specs_and_simulate() {
    let scratch = Scratch::new();
    imported(&scratch);
    let checked = json(&scratch, &["check", "policies", "--json"]);
    for policy in checked["files"].as_array().unwrap() {
        assert_eq!(policy["warnings"], serde_json::json!([]), "{policy}");
    }
    assert_eq!(checked["files"].as_array().unwrap().len(), SAMPLES.len());
    let (code, stdout, stderr) = run(&scratch, &["test", "policies"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for (_, _, name, _, high) in SAMPLES.iter().filter(|sample| sample.2 != "gocd-agents") {
        let (policy, high) = (format!("policies/{name}.lua"), high.to_string());
        let world = ["--load", "square", "--high", &high, "--period", "20m", "--for", "1h", "--start", "1", "--json"];
        let arguments: Vec<&str> = ["simulate", policy.as_str()].into_iter().chain(world).collect();
        let (code, stdout, stderr) = run(&scratch, &arguments);
        assert_eq!(code, Some(0), "{name}: {stdout}{stderr}");
        assert!(!stderr.contains("error"), "{name}: {stderr}");
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["script_errors"], 0, "{name}: {report}");
        // A cron's hours do not depend on the load.
        assert!(report["changes"].as_u64().unwrap() > 0 || *name == "keda-cron", "{name}: {report}");
    }
}

#[test]
fn what_is_written_is_as_a_person_would_write_it() {
    let scratch = Scratch::new();
    imported(&scratch);
    if let Some(luacheck) = tool("luacheck") {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = std::process::Command::new(luacheck)
            .args(["--no-color", "-q", "--config"])
            .arg(package.join(".luacheckrc"))
            .arg("policies")
            .current_dir(scratch.folder())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    for name in ["php-apache", "shop", "keda-prometheus", "keda-cron", "front", "Demo-Framework"] {
        assert_snapshot!(format!("import_{name}"), scratch.read(&format!("policies/{name}.lua")));
    }
    assert_snapshot!("import_php-apache_test", scratch.read("policies/php-apache_test.lua"));
}

#[test]
fn backends_change_what_runs_and_nothing_else() {
    let scratch = Scratch::new();
    let some = ["php-apache", "rabbits", "keda-metrics-api", "front", "relay", "gocd-agents"];
    for (source, file, name, text, _) in SAMPLES.iter().filter(|sample| some.contains(&sample.2)) {
        scratch.write(file, text);
        for backend in ["local", "docker", "swarm", "mesos", "none"] {
            let dir = format!("{backend}/{source}");
            let arguments = ["import", source, file, "--backend", backend, "--output", &dir];
            let (code, stdout, stderr) = run(&scratch, &arguments);
            // Tasks of Relay and agents are nobody else's to run.
            let refused = match *source {
                "relay" => matches!(backend, "swarm" | "none"),
                "gocd-mesos" => backend == "none",
                _ => false,
            };
            assert_eq!(code, Some(if refused { 78 } else { 0 }), "{file} {backend}: {stdout}{stderr}");
            if !refused && *source != "gocd-mesos" {
                let text = scratch.read(&format!("{dir}/{name}.lua"));
                assert!(text.contains(&format!("backend = \"{backend}\"")), "{text}");
            }
        }
    }
    for backend in ["local", "docker", "swarm", "mesos", "none"] {
        for source in scratch.list(backend) {
            let dir = format!("{backend}/{source}");
            for verb in ["check", "test"] {
                let (code, stdout, stderr) = run(&scratch, &[verb, &dir]);
                assert_eq!(code, Some(0), "{verb} {dir}: {stdout}{stderr}");
            }
        }
    }
}

#[test]
fn what_cannot_be_carried_over_is_told_everywhere() {
    let scratch = Scratch::new();
    scratch.write(
        "odd.yaml",
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata:\n  name: odd\nspec:\n  scaleTargetRef: { name: odd }\n  \
         colour: blue\n  triggers:\n  - type: kafka\n    metadata: { topic: orders }\n  - type: redis\n    metadata: { \
         address: 'r:6379', listName: l, fast: yes }\n",
    );
    let (code, policy, stderr) = run(&scratch, &["import", "keda", "odd.yaml", "--strict"]);
    assert_eq!(code, Some(1), "{stderr}");
    for (line, what) in [(7, "spec.colour = \"blue\""), (9, "spec.triggers[0] = "), (12, "metadata.fast = \"yes\"")] {
        assert!(stderr.contains(&format!("odd.yaml:{line}: not carried over: ")), "{line}: {stderr}");
        assert!(stderr.contains(what) && policy.contains(what), "{what}: {stderr}{policy}");
    }
    let value = json(&scratch, &["import", "keda", "odd.yaml", "--json"]);
    assert_eq!(value["policies"][0]["lost"].as_array().unwrap().len(), 3, "{value}");
    assert_eq!(value["policies"][0]["policy"], policy);
    // Nothing lost is fine with --strict; what is to be filled in is not lost.
    scratch.write("php-apache.yaml", include_str!("import/php-apache.yaml"));
    let (code, _, stderr) = run(&scratch, &["import", "hpa", "php-apache.yaml", "--strict", "-o", "-"]);
    assert_eq!(code, Some(0), "{stderr}");
    // No password reaches a policy.
    scratch.write("gocd-mesos.conf", include_str!("import/gocd-mesos.conf"));
    let (_, policy, stderr) = run(&scratch, &["import", "gocd-mesos", "gocd-mesos.conf"]);
    assert!(!policy.contains("it is a secret") && !stderr.contains("it is a secret"), "{policy}{stderr}");
}

/// Manifests and settings with one thing in them, and what is told of it; nothing where it is carried over.
#[test]
fn keys_that_are_known_are_carried_over_or_told() {
    let deployment = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: { name: w }\nspec:\n  REST\n  template:\n    \
                      metadata: { labels: { app: w, tier: front } }\n    spec:\n      containers:\n      - name: w\n        \
                      image: w:1\n        PART\n";
    let hpa = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: { name: w }\nspec:\n  \
               scaleTargetRef: { kind: Deployment, name: w }\n  maxReplicas: 3\n";
    let keda = "kind: ScaledObject\nmetadata: { name: w }\nspec:\n  scaleTargetRef: { name: w }\n  REST\n  triggers:\n  - \
                type: prometheus\n    PART\n    metadata: { serverAddress: 'http://p', query: q, threshold: '1', MORE }\n";
    let gocd = "gocd-mesos { go-server { host = h, REST }, go-agent { auto-register-key = k, max-agents = 2 } }";
    let nomad = "job \"j\" {\n  group \"g\" {\n    REST\n    scaling {\n      max = 3\n      policy {\n        \
                 check \"c\" {\n          source = \"prometheus\"\n          query = \"q\"\n          \
                 strategy \"target-value\" { target = 2 }\n        }\n      }\n    }\n    task \"t\" {\n      \
                 driver = \"DRIVER\"\n      config {\n        image = \"w:1\"\n        PART\n      }\n    }\n  }\n}\n";
    let object = |rest: &str, part: &str| hpa.to_owned() + &deployment.replace("REST", rest).replace("PART", part);
    let scaled = |rest: &str, part: &str, more: &str| {
        keda.replace("REST", rest).replace("PART", part).replace("MORE", more).replace(", }", " }")
    };
    let job = |rest: &str, driver: &str, part: &str| {
        nomad.replace("REST", rest).replace("DRIVER", driver).replace("PART", part)
    };
    let plain = object("selector: { matchLabels: { app: w } }", "imagePullPolicy: Always");
    let cases: &[(&str, String, &[&str], &str)] = &[
        ("hpa", plain.clone(), &[], "labels = { tier = \"front\" },\n    pull = \"always\","),
        (
            "hpa",
            object("replicas: 4", "ports: [{ containerPort: 9, protocol: TCP }]"),
            &["Deployment.spec.replicas = 4"],
            "",
        ),
        (
            "hpa",
            object("strategy: { type: Recreate }", "ports: [{ containerPort: 9, protocol: UDP }]"),
            &["Deployment.spec.strategy = ", "protocol = \"UDP\""],
            "port9 = 9",
        ),
        ("hpa", object("", "imagePullPolicy: Sometimes"), &["imagePullPolicy = \"Sometimes\""], ""),
        (
            "hpa",
            hpa.to_owned()
                + &deployment
                    .replace("name: w }", "name: w, labels: { team: x } }")
                    .replace("REST", "")
                    .replace("PART", ""),
            &["Deployment.metadata.labels = {team: \"x\"}"],
            "",
        ),
        (
            "hpa",
            hpa.replace("kind: Deployment", "kind: Rollout") + "---\nkind: Rollout\nmetadata: { name: w }",
            &["Rollout w"],
            "",
        ),
        (
            "keda",
            scaled(
                "advanced: { restoreToOriginalReplicaCount: true, horizontalPodAutoscalerConfig: { name: n } }",
                "",
                "",
            ),
            &["spec.advanced.restoreToOriginalReplicaCount = true", "horizontalPodAutoscalerConfig.name = \"n\""],
            "",
        ),
        ("keda", scaled("", "name: mine", "metricName: old"), &["].name = \"mine\"", "metricName = \"old\""], ""),
        ("gocd-mesos", gocd.replace("REST", "auth-enabled = true"), &[], ""),
        ("gocd-mesos", gocd.replace("REST", "auth-enabled = false"), &[], ""),
        (
            "gocd-mesos",
            gocd.replace("REST", "auth-enabled = false, user-name = u"),
            &["go-server.auth-enabled = false"],
            "",
        ),
        ("nomad", job("", "docker", ""), &[], "w:1"),
        (
            "nomad",
            job("count = 3", "exec", "ports = [\"http\"]"),
            &[".count = 3", "driver = \"exec\"", "ports = [\"http\"]"],
            "",
        ),
        (
            "nomad",
            job("", "docker", "") + "job \"k\" {\n  group \"alone\" {\n    count = 1\n  }\n}\n",
            &["group \"alone\""],
            "",
        ),
    ];
    for (kind, text, expected, written) in cases {
        let all =
            import(source(kind), "input", text, &Options::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let lost: Vec<&str> = all[0].report.lost.iter().map(|lost| lost.what.as_str()).collect();
        assert_eq!(lost.len(), expected.len(), "{text}: {lost:#?}");
        for what in *expected {
            assert!(lost.iter().any(|lost| lost.contains(what)), "{what}: {lost:#?}\n{text}");
        }
        assert!(all[0].policy.contains(written), "{written}: {}", all[0].policy);
    }
    // Where there is no container, neither labels nor the fetching of an image mean anything.
    let local = Options { backend: Some(setpoint::import::Backend::Local), ..Options::default() };
    let all = import(Source::Hpa, "input", &plain, &local).unwrap();
    let lost: Vec<&str> = all[0].report.lost.iter().map(|lost| lost.what.as_str()).collect();
    assert_eq!(lost, ["the image w:1", "fetching the image: always", "the labels tier"]);
}

#[test]
fn files_that_are_there_stay() {
    let scratch = Scratch::new();
    scratch.write("hpa.yaml", include_str!("import/php-apache.yaml"));
    scratch.write("out/web_test.lua", "-- mine");
    let arguments = ["import", "hpa", "hpa.yaml", "--output", "out", "--name", "web"];
    let (code, _, stderr) = run(&scratch, &arguments);
    assert_eq!((code, scratch.list("out").len()), (Some(74), 1), "{stderr}");
    assert!(stderr.contains("web_test.lua") && stderr.contains("--force"), "{stderr}");
    let forced: Vec<&str> = arguments.into_iter().chain(["--force"]).collect();
    assert_eq!(run(&scratch, &forced).0, Some(0));
    assert_eq!(scratch.list("out"), ["web.lua", "web_test.lua"]);
    assert!(scratch.read("out/web.lua").starts_with("-- web.lua: "));
    // Several policies need a folder.
    let twice = [include_str!("import/rabbits.yaml"), include_str!("import/php-apache.yaml")].join("---\n");
    scratch.write("two.yaml", &twice);
    let (code, stdout, stderr) = run(&scratch, &["import", "hpa", "two.yaml"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
}

#[test]
fn bad_input_says_where_what_was_expected_and_what_came() {
    let deep = "[".repeat(100);
    let mut laughs = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (name, before) in ('b'..='i').zip('a'..) {
        laughs.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(",")));
    }
    let hpa = include_str!("import/php-apache.yaml");
    let cases: &[(&str, &str, &str)] = &[
        ("hpa", "", "expected a manifest of kind HorizontalPodAutoscaler, got an empty text"),
        ("hpa", "a: [", "expected YAML or JSON"),
        ("hpa", include_str!("import/keda-redis.yaml"), "`setpoint import keda` reads a ScaledObject"),
        ("keda", hpa, "`setpoint import hpa` reads a HorizontalPodAutoscaler"),
        (
            "hpa",
            &hpa.replace("maxReplicas: 10", "maxReplicas: many"),
            ":9:16: spec.maxReplicas: expected a whole number",
        ),
        ("hpa", &hpa.replace("minReplicas: 1", "minReplicas: 11"), "expected at least 1 and minReplicas (11), got 10"),
        ("hpa", &hpa.replace("type: Resource", "type: Telepathy"), "or External, got \"Telepathy\""),
        ("hpa", &hpa.replace("averageUtilization: 50", "averageUtilization: 0"), "a percentage above 0"),
        ("hpa", &hpa.replace("autoscaling/v2", "autoscaling/v1"), "hpa.v2.autoscaling"),
        ("hpa", &deep, "expected at most 64 levels of nesting"),
        ("hpa", &laughs, "expected at most 100000 values, aliases counted"),
        ("hpa", "a: *b", "expected"),
        ("hpa", "a: 1\na: 2", ":2:1: expected each key once, got `a` twice"),
        (
            "keda",
            &include_str!("import/keda-cron.yaml").replace("30 7", "99 7"),
            "expected a cron expression of five fields",
        ),
        (
            "keda",
            &include_str!("import/keda-cron.yaml").replace("Europe/Berlin", "Mars/Crater"),
            "expected a time zone",
        ),
        ("nomad", "scaling \"a\" {", "expected HCL"),
        ("nomad", "x = 1", "expected a `scaling` block"),
        ("nomad", "scaling \"a\" {\n  min = 1\n  policy {}\n}", ":1:1: scaling.max: expected a whole number"),
        ("relay", "hello there", "expected options of Relay"),
        ("relay", "RELAY_METRIC=m\nRELAY_TARGET=1\n", "expected a warmer, a cooler or both, got neither"),
        ("relay", "relay.mesos -w 'a", "expected a closing '"),
        ("relay", "relay.mesos -w a -m", "-m: expected a value, got nothing"),
        ("gocd-mesos", "other { a = 1 }", "expected the section `gocd-mesos`"),
        ("gocd-mesos", "gocd-mesos { go-server {", "expected a key, got the end of the text"),
    ];
    let scratch = Scratch::new();
    for (source, text, expected) in cases {
        scratch.write("input", text);
        let (code, stdout, stderr) = run(&scratch, &["import", source, "input"]);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{source} {text}: {stderr}");
        assert!(stderr.contains("input:") && stderr.contains(expected), "{source}: {expected}: {stderr}");
    }
    let (code, _, stderr) = run(&scratch, &["import", "hpa", "nowhere.yaml"]);
    assert_eq!(code, Some(74), "{stderr}");
}

/// Texts that would end a string, a comment or a line of Lua, or steer a terminal.
const HOSTILE: &[&str] = &[
    "]]",
    "]==]",
    "--[[",
    "\\\"; os.exit() --",
    "'\"'",
    "\\u202e\\u0000\\n x",
    "ключ ünï",
    "${x}",
    "1e999",
    "-1",
    "~",
    "*x",
    "luacheck: ignore",
    "999999999999",
    "%d %s",
    "{{ .Values.x }}",
];

/// A sample with a few things done to it.
fn spoilt(text: &str, random: &mut fastrand::Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..lines.len());
        let line = lines[at].clone();
        let hostile = HOSTILE[random.usize(..HOSTILE.len())];
        match random.u8(..6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, line),
            2 => {
                let (key, _) = line.split_once([':', '=']).unwrap_or((&line, ""));
                let mark = if line.contains('=') { "=" } else { ":" };
                lines[at] = format!("{key}{mark} \"{hostile}\"");
            }
            3 => {
                let cut = random.usize(..=line.len());
                let cut = (0..=cut).rev().find(|cut| line.is_char_boundary(*cut)).unwrap_or(0);
                lines[at] = format!("{}{hostile}{}", &line[..cut], &line[cut..]);
            }
            4 => lines[at] = line.replace(char::is_numeric, &random.u8(..10).to_string()),
            _ => lines[at] = line.replace(['a', 'e'], &random.char('!'..'~').to_string()),
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

/// `SETPOINT_CASES` is the number of spoilt texts, `SETPOINT_SEED` where they begin.
#[test]
fn whatever_the_input_there_is_no_panic_and_what_is_written_loads() {
    let cases = setting("SETPOINT_CASES", 1_000);
    let mut random = fastrand::Rng::with_seed(setting("SETPOINT_SEED", 1));
    let scratch = Scratch::new();
    let mut written = 0;
    for case in 0..cases {
        let (name, file, _, text, _) = SAMPLES[random.usize(..SAMPLES.len())];
        let text = spoilt(text, &mut random);
        let Ok(all) = import(source(name), file, &text, &Options::default()) else { continue };
        for one in all {
            assert!(!one.policy.contains('\0') && !one.policy.contains('\u{202e}'), "{text}");
            // As many as are loaded in a moment.
            if case % cases.div_ceil(100) == 0 {
                scratch.write(&format!("policies/p{case}-{written}.lua"), &one.policy);
                scratch.write(&format!("inputs/p{case}-{written}"), &text);
                written += 1;
            }
        }
    }
    assert!(written > 10, "only {written} of {cases} spoilt texts could be imported");
    let (code, stdout, stderr) = run(&scratch, &["check", "policies"]);
    if code != Some(0) {
        let failed = scratch.list("policies").into_iter().find(|name| stdout.contains(name) || stderr.contains(name));
        let stem = failed.unwrap_or_default().replace(".lua", "");
        panic!("{stdout}{stderr}\n{}", scratch.read(&format!("inputs/{stem}")));
    }
}
