//! The state machine by tables and by random schedules.

use proptest::prelude::*;

use super::*;

fn url(port: u16) -> Url {
    Url::parse(&format!("http://127.0.0.1:{port}/")).unwrap()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn subscribed(subscription: &mut Subscription, now: Duration) {
    let heartbeat = Some(ms(1000));
    assert_eq!(subscription.step(now, Input::Subscribed { heartbeat }), []);
    assert!(matches!(subscription.state(), State::Subscribed { .. }));
}

#[test]
fn a_redirect_is_followed_and_five_missed_heartbeats_end_the_stream() {
    let mut one = Subscription::with_list(vec![url(1), url(2)], Patience::default(), 7);
    assert_eq!(one.step(ms(0), Input::Start), [Effect::Subscribe(url(1))]);
    let location = "//localhost:3/api/v1/scheduler".to_owned();
    assert_eq!(one.step(ms(1), Input::Redirected(location)), [Effect::Close, Effect::Subscribe(url(3))]);
    subscribed(&mut one, ms(2));
    assert_eq!(one.deadline(), Some(ms(5002)));
    assert_eq!(one.step(ms(4000), Input::Heard), []);
    assert_eq!(one.step(ms(5002), Input::Due), [], "something was heard meanwhile");
    let effects = one.step(ms(9000), Input::Due);
    assert!(matches!(&effects[..], [Effect::Close, Effect::Lost(why)] if why.contains("5 heartbeats")), "{effects:?}");
    let until = one.deadline().unwrap();
    assert!(until > ms(9000) && until < ms(9100), "the first try comes soon: {until:?}");
    assert_eq!(one.step(until, Input::Due), [Effect::Subscribe(url(1))]);
}

#[test]
fn masters_of_a_list_are_tried_in_turn_with_growing_pauses() {
    let mut list = Subscription::with_list(vec![url(1), url(2)], Patience::default(), 7);
    let (mut now, mut asked, mut pauses) = (ms(0), Vec::new(), Vec::new());
    let mut effects = list.step(now, Input::Start);
    for _ in 0..14 {
        let Some(Effect::Subscribe(master)) = effects.last() else { panic!("{effects:?}") };
        asked.push(master.port().unwrap());
        list.step(now, Input::Lost("connection refused".to_owned()));
        let until = list.deadline().unwrap();
        pauses.push(until.checked_sub(now).unwrap());
        now = until;
        effects = list.step(now, Input::Due);
    }
    assert_eq!(asked, [1, 2].repeat(7));
    assert!(pauses.iter().step_by(2).all(|pause| *pause < ms(100)), "{pauses:?}");
    let rounds: Vec<_> = pauses.iter().skip(1).step_by(2).copied().collect();
    assert!(rounds[0] >= ms(125) && rounds[0] <= ms(250), "{rounds:?}");
    assert!(rounds[6] >= ms(2500) && rounds[6] <= ms(5000), "{rounds:?}");
}

#[test]
fn streams_that_are_cut_at_once_are_asked_for_less_and_less_often() {
    let mut list = Subscription::with_list(vec![url(1), url(2)], Patience::default(), 7);
    let (mut now, mut pauses) = (ms(0), Vec::new());
    assert_eq!(list.step(now, Input::Start), [Effect::Subscribe(url(1))]);
    // Its heartbeats are a second apart; another one, whose are further apart, has lived after 5 s.
    let mut lost_after = |list: &mut Subscription, lived: Duration, heartbeat: u64| {
        list.step(now, Input::Subscribed { heartbeat: Some(ms(heartbeat)) });
        list.step(now + lived / 2, Input::Subscribed { heartbeat: Some(ms(heartbeat)) });
        now += lived;
        let effects = list.step(now, Input::Lost("cut".to_owned()));
        assert!(matches!(&effects[..], [Effect::Close, Effect::Lost(_)]), "{effects:?}");
        let until = list.deadline().unwrap();
        let pause = until.checked_sub(now).unwrap();
        now = until;
        assert_eq!(list.step(now, Input::Due), [Effect::Subscribe(url(1))], "nothing is wrong with that master");
        pause
    };
    for _ in 0..8 {
        pauses.push(lost_after(&mut list, ms(999), 1000));
    }
    assert!(pauses[0] < ms(100), "{pauses:?}");
    assert!(pauses[1] >= ms(125) && pauses[1] <= ms(250), "{pauses:?}");
    assert!(pauses[7] >= ms(2500) && pauses[7] <= ms(5000), "{pauses:?}");
    assert!(lost_after(&mut list, ms(1000), 1000) < ms(100), "one that lived is had again at once");
    assert!(lost_after(&mut list, ms(10), 1000) < ms(100), "and so is the first one that did not");
    assert!(lost_after(&mut list, ms(4999), 15_000) >= ms(125));
    assert!(lost_after(&mut list, ms(5000), 15_000) < ms(100));
}

#[test]
fn an_absurd_heartbeat_is_not_believed() {
    let mut one = Subscription::with_list(vec![url(1)], Patience::default(), 7);
    one.step(ms(0), Input::Start);
    one.step(ms(1), Input::Subscribed { heartbeat: Some(Duration::MAX) });
    let until = ms(1) + LONGEST_HEARTBEAT * 5;
    assert_eq!(one.state(), &State::Subscribed { master: url(1), heartbeat: LONGEST_HEARTBEAT, until });
}

#[test]
fn a_new_leader_ends_the_stream_and_a_forgotten_one_does_not() {
    let mut one = Subscription::with_detection(Patience::default(), 7);
    assert_eq!(one.step(ms(0), Input::Start), []);
    assert_eq!((one.state(), one.deadline()), (&State::Detecting, None));
    assert_eq!(one.step(ms(5), Input::Leader(Some(url(1)))), [Effect::Subscribe(url(1))]);
    subscribed(&mut one, ms(6));
    assert_eq!(one.step(ms(7), Input::Leader(None)), []);
    assert_eq!(one.step(ms(8), Input::Leader(Some(url(1)))), []);
    let effects = one.step(ms(9), Input::Leader(Some(url(2))));
    assert!(matches!(&effects[..], [Effect::Close, Effect::Lost(_), Effect::Subscribe(_)]), "{effects:?}");
    assert_eq!(one.step(ms(10), Input::Leader(None)), [Effect::Close]);
    assert_eq!(one.state(), &State::Detecting);
}

#[test]
fn refusals_end_it_and_troubles_of_a_server_do_not() {
    let refused = |status| Input::Refused { status, what: "no".to_owned() };
    for status in [400, 401, 403] {
        let mut one = Subscription::with_list(vec![url(1)], Patience::default(), 7);
        one.step(ms(0), Input::Start);
        let end = End::Refused { status, what: "no".to_owned() };
        assert_eq!(one.step(ms(1), refused(status)), [Effect::Close, Effect::End(end)]);
        assert_eq!(one.step(ms(2), Input::Leader(Some(url(2)))), []);
        assert_eq!(one.step(ms(3), Input::Start), [], "what has ended stays so");
    }
    for status in [404, 500, 503] {
        let mut one = Subscription::with_list(vec![url(1)], Patience::default(), 7);
        one.step(ms(0), Input::Start);
        assert_eq!(one.step(ms(1), refused(status)), [Effect::Close, Effect::Failed("no".to_owned())]);
        assert!(matches!(one.state(), State::Waiting { .. }));
    }
    let mut one = Subscription::with_list(vec![url(1)], Patience::default(), 7);
    one.step(ms(0), Input::Start);
    for _ in 0..3 {
        one.step(ms(1), Input::Redirected("//127.0.0.1:2".to_owned()));
        one.step(ms(1), Input::Redirected("//127.0.0.1:1".to_owned()));
    }
    assert!(matches!(one.state(), State::Waiting { .. }), "two masters that point at each other are given a rest");
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        1 => Just(Input::Start),
        1 => prop::option::of(1_u16..4).prop_map(|port| Input::Leader(port.map(url))),
        1 => prop_oneof!["//127.0.0.1:[1-4]", "//localhost:[1-4]/api/v1/scheduler", ".{0,12}"].prop_map(Input::Redirected),
        1 => prop::sample::select(vec![401_u16, 404, 500, 503])
            .prop_map(|status| Input::Refused { status, what: String::new() }),
        1 => prop::option::of(prop_oneof![9 => 0_u64..3000, 1 => any::<u64>()])
            .prop_map(|millis| Input::Subscribed { heartbeat: millis.map(ms) }),
        1 => Just(Input::Heard),
        1 => Just(Input::Lost(String::new())),
        4 => Just(Input::Due),
    ]
}

proptest! {
    #[test]
    fn there_is_one_stream_at_most_and_no_state_waits_for_ever(
        list in any::<bool>(),
        inputs in prop::collection::vec((0_u64..20_000, input()), 0..60),
    ) {
        let mut one = if list {
            Subscription::with_list(vec![url(1), url(2)], Patience::default(), 1)
        } else {
            Subscription::with_detection(Patience::default(), 1)
        };
        let (mut now, mut open) = (Duration::ZERO, false);
        for (wait, input) in inputs {
            now += ms(wait);
            // The driver gives these while there is a connection only.
            let of_a_stream = !matches!(input, Input::Start | Input::Leader(_) | Input::Due);
            let begins_twice = input == Input::Start && *one.state() != State::Detecting;
            if (of_a_stream && !open) || begins_twice {
                continue;
            }
            for effect in one.step(now, input) {
                match effect {
                    Effect::Subscribe(_) => {
                        prop_assert!(!open, "a second stream");
                        open = true;
                    }
                    Effect::Close => open = false,
                    Effect::Lost(_) | Effect::Failed(_) | Effect::End(_) => {}
                }
            }
            let streams = matches!(one.state(), State::Connecting { .. } | State::Subscribed { .. });
            prop_assert_eq!(streams, open);
            match one.state() {
                State::Ended => prop_assert_eq!(one.deadline(), None),
                State::Detecting => prop_assert!(!list || one.deadline().is_none()),
                _ => prop_assert!(one.deadline().is_some_and(|until| until <= now + LONGEST_HEARTBEAT * 5)),
            }
        }
    }
}
