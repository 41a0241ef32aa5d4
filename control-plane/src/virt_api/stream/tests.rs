use axum::extract::ws::CloseFrame;

use super::{End, close_code};

fn farewell(code: u16, reason: &'static str) -> End {
    End::Closed(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

/// Upstream's virtctl ends with success, and says nothing, when a stream closes with code 1000.
#[test]
fn a_client_is_not_told_that_an_end_it_did_not_ask_for_is_a_normal_one() {
    #[track_caller]
    fn check(end: End, code: u16, reason: &str) {
        let frame = end.unasked().frame();
        assert_eq!((frame.code, frame.reason.as_str()), (code, reason));
    }
    let taken = "another client has taken over the console";
    check(farewell(close_code::NORMAL, taken), 4000, taken);
    check(End::Closed(None), 4000, "the other side has closed");
    check(End::Broken, 4000, "the other side is gone");
    // Codes that say more are left: a client may connect again.
    let stops = "the node agent stops; connect again";
    check(farewell(close_code::AWAY, stops), close_code::AWAY, stops);
    check(End::Silent, close_code::AWAY, "pings are not answered");
}

#[test]
fn a_port_that_has_nothing_more_to_send_ends_as_files_do() {
    assert_eq!(End::Closed(None).frame().code, close_code::NORMAL);
}
