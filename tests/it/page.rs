//! The page in a real Chromium, against an engine that the tests play.
#![cfg(feature = "http")]
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod browser;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fantoccini::{Client, Locator};
use setpoint::core::model::{PolicyName, Sample};
use setpoint::http::HttpConfig;
use setpoint::runtime::view::{Command, StreamEvent};

use self::browser::{Browser, with_browser};
use crate::http::fake::{Fake, script_error, task};
use crate::support::{Scratch, Setpoint};

const CHART: &str = "document.querySelector('svg.chart')";
const SAMPLE: &str = "document.querySelector('svg.chart .sample-line').getAttribute('d')";

async fn click(client: &Client, selector: &str) {
    client.find(Locator::Css(selector)).await.unwrap().click().await.unwrap();
}

/// Two minutes that lie behind: a swing, a time without samples, and zeros.
async fn live_through_two_minutes(fake: &Fake, name: &str) {
    for second in 0..120_u32 {
        fake.tick(name, |policy| {
            policy.last_tick = Some(SystemTime::now() - Duration::from_secs(u64::from(120 - second)));
            policy.sample = Some(match second {
                0..20 | 90..105 => Sample::value(0.0),
                60..70 => Sample::Error { message: "connection refused".into() },
                _ => Sample::value(12.0 + 8.0 * (f64::from(second) / 9.0).sin()),
            });
            policy.setpoint = Some(if second < 80 { 10.0 } else { 4.0 });
            policy.counts.running = if second < 20 { 0 } else { 1 + second / 20 };
            policy.counts.ready = policy.counts.running;
            policy.counts.asked = u32::from(second % 20 == 0);
            policy.acted = i64::from(second % 20 == 0);
        });
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_follows_the_engine() {
    with_browser(|browser| async move {
        let fake = Fake::start(&["queue"]).await;
        live_through_two_minutes(&fake, "queue").await;
        fake.publisher.set_tasks([task("queue", 1), task("queue", 2)]);
        browser.client.goto(&fake.url("/")).await.unwrap();

        shows_the_past(&browser).await;
        moves_with_new_ticks(&browser, &fake).await;
        shows_errors_as_text(&browser, &fake).await;
        let failing = browser.client.screenshot().await.unwrap();
        stops_showing_errors(&browser, &fake).await;
        takes_orders(&browser, &fake).await;
        // One call was refused on purpose; nothing else fails, and nothing is blocked.
        let complaints = browser.complaints().await;
        assert!(complaints.iter().all(|complaint| complaint.contains("status of 422")), "{complaints:?}");

        browser.colour_scheme("light").await;
        let light = browser.client.screenshot().await.unwrap();
        browser.colour_scheme("dark").await;
        let dark = browser.client.screenshot().await.unwrap();

        browser.client.set_window_size(420, 900).await.unwrap();
        let addr = shows_a_lost_connection(&browser, fake).await;
        let narrow = browser.client.screenshot().await.unwrap();
        comes_back(&browser, addr).await;

        let shots =
            [("page-light", light), ("page-dark", dark), ("page-failing", failing), ("page-narrow-lost", narrow)];
        let measured = browser.measure_screenshots(&shots).await;
        assert!(measured.iter().all(|(colours, _)| *colours > 100), "not blank: {measured:?}");
        assert!(measured[0].1 > 0.7 && measured[1].1 < 0.4, "one is light and one is dark: {measured:?}");
    })
    .await;
}

/// The same page on the real command, with a real policy, real tasks and real files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_real_run() {
    const THERMOSTAT: &str = include_str!("../../scripts/thermostat.lua");
    let scratch = Scratch::new();
    scratch.policy("thermostat", THERMOSTAT);
    let mut setpoint = Setpoint::run(&scratch, ["thermostat.lua", "--set", "shape=fixed", "--set", "target=6"]);
    let page = format!("{}/", setpoint.address().await);
    with_browser(|browser| async move {
        browser.client.goto(&page).await.unwrap();
        browser.wait_for("document.querySelector('#connection').dataset.state === 'live'").await;
        // The chart moves with the ticks, and the tasks come up to the target.
        browser.wait_for(&format!("Number({CHART}?.dataset.points) > 0")).await;
        let points = browser.js(&format!("return Number({CHART}.dataset.points)")).await;
        browser.wait_for(&format!("Number({CHART}.dataset.points) > {points} + 20")).await;
        browser.wait_for(&format!("Number({CHART}.dataset.last) >= 5")).await;
        click(&browser.client, "details.tasks summary").await;
        browser.wait_for("document.querySelectorAll('.tasks tbody tr').length >= 3").await;

        // A bad save is refused, and the page says so until it is mended.
        let fault = "document.querySelector('.faults')";
        scratch.replace("thermostat.lua", "return { interval = ");
        browser.wait_for(&format!("!{fault}.hidden && {fault}.innerText.includes('was refused')")).await;
        let told = browser.js(&format!("return {fault}.innerText")).await;
        assert!(told.as_str().unwrap().contains("thermostat.lua:1"), "{told}");
        scratch.replace("thermostat.lua", THERMOSTAT);
        browser.wait_for(&format!("{fault}.hidden")).await;

        // A pause that is pressed holds the engine, which the badge is shown by, until it is taken back.
        let paused = "document.querySelector('.badges').innerText.includes('paused')";
        click(&browser.client, "button.pause").await;
        browser.wait_for(paused).await;
        click(&browser.client, "button.pause").await;
        browser.wait_for(&format!("!{paused}")).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
    })
    .await;
}

/// The chart is not empty when the page opens, and has a gap where there was no sample.
async fn shows_the_past(browser: &Browser) {
    browser.wait_for("document.querySelector('#connection').dataset.state === 'live'").await;
    browser.wait_for(&format!("Number({CHART}?.dataset.points) >= 100")).await;
    let path = browser.wait_for(SAMPLE).await;
    assert_eq!(path.as_str().unwrap().matches('M').count(), 2, "one gap: {path}");
    let crosses = browser.js("return document.querySelector('svg.chart .bad-marks').getAttribute('d')").await;
    assert_eq!(crosses.as_str().unwrap().matches('M').count(), 10, "a cross for each tick without a sample");
    for line in ["setpoint-line", "running-area", "wanted-line"] {
        browser.wait_for(&format!("document.querySelector('svg.chart .{line}').getBBox().width > 100")).await;
    }
    let reasons = browser.js("return document.querySelector('.reasons').innerText").await;
    assert!(reasons.as_str().unwrap().contains("step: at most 1 in 60s: +2 → +1"), "{reasons}");
}

/// A tick redraws the chart; 0 is a value like any other.
async fn moves_with_new_ticks(browser: &Browser, fake: &Fake) {
    for value in [7.5, 0.0] {
        let before = browser.js(&format!("return {SAMPLE}")).await;
        fake.tick("queue", |policy| policy.sample = Some(Sample::value(value)));
        browser.wait_for(&format!("{CHART}.dataset.last === '{value}'")).await;
        assert_ne!(browser.js(&format!("return {SAMPLE}")).await, before);
        browser.wait_for("document.querySelector('.sample-dot').getAttribute('visibility') === 'visible'").await;
    }
    browser.wait_for("document.querySelector('.figures dd').textContent === '0'").await;
    browser.wait_for(&format!("{CHART}.getAttribute('aria-label').includes('sample 0, setpoint 4')")).await;
    // The single ticks can be read by keyboard.
    browser.js(&format!("{CHART}.focus()")).await;
    browser.js(&format!("{CHART}.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowLeft' }}))")).await;
    browser.wait_for("document.querySelector('.readout').textContent.includes('sample 0')").await;
}

/// An error shows with its report; nothing of it becomes markup.
async fn shows_errors_as_text(browser: &Browser, fake: &Fake) {
    fake.publisher.emit(StreamEvent::Error {
        policy: PolicyName::from("queue"),
        error: script_error(),
        held: "held at 7 tasks".into(),
    });
    fake.tick("queue", |policy| {
        policy.script.error = Some(script_error());
        policy.sample = Some(Sample::Error { message: "attempt to index nil".into() });
    });
    let faults = browser
        .wait_for("!document.querySelector('.faults').hidden && document.querySelector('.faults').innerText")
        .await;
    let faults = faults.as_str().unwrap();
    assert!(faults.contains("held at 7 tasks") && faults.contains("queue.lua:12:18: metric:"), "{faults}");
    assert!(faults.contains("<script>alert(1)</script>") && faults.contains("12 |   return redis"), "{faults}");
    browser.wait_for("document.querySelector('.badges').innerText.includes('script error')").await;
}

async fn stops_showing_errors(browser: &Browser, fake: &Fake) {
    fake.tick("queue", |policy| {
        policy.script.error = None;
        policy.sample = Some(Sample::value(3.0));
    });
    browser.wait_for("document.querySelector('.faults').hidden").await;
}

/// Pause, resume, override and its refusal; the table of tasks.
async fn takes_orders(browser: &Browser, fake: &Fake) {
    let client = &browser.client;
    click(client, "button.pause").await;
    browser.wait_for("document.querySelector('.badges').innerText.includes('paused')").await;
    browser.wait_for("document.querySelector('button.pause').textContent === 'Resume'").await;
    assert!(matches!(fake.take_commands().as_slice(), [Command::Pause { .. }]));
    click(client, "button.pause").await;
    browser.wait_for("document.querySelector('button.pause').textContent === 'Pause'").await;

    click(client, ".override summary").await;
    for (field, text) in [("min", "2"), ("max", "90"), ("for", "15m"), ("reason", "sale")] {
        client.find(Locator::Css(&format!(".override [name={field}]"))).await.unwrap().send_keys(text).await.unwrap();
    }
    click(client, ".override button[type=submit]").await;
    browser.wait_for("document.querySelector('.outcome.bad')?.textContent.includes('needs `force`')").await;
    click(client, ".override [name=force]").await;
    click(client, ".override button[type=submit]").await;
    browser.wait_for("document.querySelector('.badges').innerText.includes('override until')").await;
    let given = fake.take_commands();
    let Some(Command::Override { min: Some(2), max: Some(90), for_: Some(for_), force: true, reason, .. }) =
        given.last()
    else {
        panic!("{given:?}");
    };
    assert_eq!((for_.as_secs(), reason.as_deref()), (900, Some("sale")));
    click(client, ".override .clear").await;
    browser.wait_for("!document.querySelector('.badges').innerText.includes('override')").await;
    click(client, ".override summary").await;

    click(client, ".tasks summary").await;
    browser.wait_for("document.querySelectorAll('.tasks tbody tr').length === 2").await;
    let row = browser.js("return document.querySelector('.tasks tbody tr').innerText").await;
    for text in ["queue.1", "running", "pid 1001", "http:31000", "12.5 %", "3.0 MiB"] {
        assert!(row.as_str().unwrap().contains(text), "{row}");
    }
    fake.publisher.set_tasks([task("queue", 2)]);
    fake.publisher.emit(StreamEvent::Task(Box::new(task("queue", 1)), Some("exit code 0".into())));
    browser.wait_for("document.querySelectorAll('.tasks tbody tr').length === 1").await;
}

/// A lost connection shows; no page is left wider than a small screen.
async fn shows_a_lost_connection(browser: &Browser, fake: Fake) -> SocketAddr {
    let addr = fake.stop().await;
    browser.wait_for("document.querySelector('#connection').innerText.includes('Connection lost')").await;
    browser.wait_for("document.documentElement.scrollWidth <= innerWidth").await;
    addr
}

/// The page goes on by itself once the server is back.
async fn comes_back(browser: &Browser, addr: SocketAddr) {
    let fake = Fake::start_with(&["queue", "second"], HttpConfig::default(), addr).await;
    browser.wait_for("document.querySelector('#connection').innerText === 'Live'").await;
    browser.wait_for("document.querySelectorAll('article').length === 2").await;
    fake.tick("queue", |policy| policy.sample = Some(Sample::value(41.0)));
    browser.wait_for(&format!("{CHART}.dataset.last === '41'")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_policies_stay_usable_behind_a_token() {
    with_browser(|browser| async move {
        let names: Vec<String> = (0..800).map(|number| format!("fleet/row-{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let config = HttpConfig { token: Some("s3cret".into()), ..HttpConfig::default() };
        let fake = Arc::new(Fake::start_with(&names, config, SocketAddr::from(([127, 0, 0, 1], 0))).await);

        // Without a token the page asks for one.
        browser.client.goto(&fake.url("/")).await.unwrap();
        browser.wait_for("document.querySelector('#token-dialog').open").await;
        browser.client.find(Locator::Id("token")).await.unwrap().send_keys("s3cret").await.unwrap();
        click(&browser.client, "#token-form button").await;
        browser.wait_for("document.querySelector('#shown').textContent === '800 of 800 policies'").await;
        // Or takes it from the address, where it does not stay.
        browser.js("sessionStorage.clear()").await;
        browser.client.goto("about:blank").await.unwrap();
        browser.client.goto(&fake.url("/#token=s3cret")).await.unwrap();
        browser.wait_for("document.querySelector('#shown').textContent === '800 of 800 policies'").await;
        assert_eq!(browser.js("return location.hash").await, "");

        // Only what is on the screen is drawn, and no more than a page of articles exists.
        browser.wait_for("document.querySelectorAll('svg.chart').length > 0").await;
        assert_eq!(browser.js("return document.querySelectorAll('article').length").await, 100);
        let charts = browser.js("return document.querySelectorAll('svg.chart').length").await;
        assert!(charts.as_u64().unwrap() < 12, "{charts} charts");
        for name in &names {
            fake.tick(name, |policy| policy.sample = Some(Sample::value(55.0)));
            tokio::task::yield_now().await;
        }
        browser.wait_for("[...document.querySelectorAll('.figures dd')].some((dd) => dd.textContent === '55')").await;

        let search = browser.client.find(Locator::Id("search")).await.unwrap();
        search.send_keys("row-777").await.unwrap();
        browser.wait_for("document.querySelector('#shown').textContent === '1 of 800 policies'").await;
        browser.wait_for("document.querySelector('article h2')?.textContent === 'fleet/row-777'").await;
        // A press on its button names the right row, slash and all.
        click(&browser.client, "button.pause").await;
        browser.wait_for("document.querySelector('.badges').innerText.includes('paused')").await;
        assert!(matches!(fake.take_commands().as_slice(), [Command::Pause { policy, .. }] if policy.as_str() == "fleet/row-777"));
        search.clear().await.unwrap();
        browser.js("const f = document.getElementById('filter'); f.value = 'held'; f.dispatchEvent(new Event('change'))").await;
        browser.wait_for("document.querySelector('#shown').textContent === '1 of 800 policies'").await;
    })
    .await;
}
