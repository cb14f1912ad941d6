//! The conformance suite of the storage interface: what `src/store/mod.rs` promises holds for every store.
//!
//! Each check is a function over an empty database ([`checks`]), and becomes a test for each kind of store. A new kind of store needs an
//! implementation of [`database::Database`] and a line in [`suite`].

#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

mod broken;
mod checks;
mod database;
mod model;
#[path = "../postgres_server/mod.rs"]
#[expect(dead_code, reason = "no check stops the server")]
mod postgres_server;
mod scene;

use std::time::Duration;

use broken::{FAULTS, Fault, broken};
use checks::Check;
use database::{Db, sled};

/// Makes the list of all checks, and a test of each for each kind of store.
macro_rules! suite {
    ($($module:ident { $($check:ident,)+ })+) => {
        /// All checks.
        const CHECKS: &[Check] =
            &[$($(Check { name: stringify!($check), run: |db| Box::pin(checks::$module::$check(db)) },)+)+];

        suite!(sled: Some(crate::database::sled()), $($module { $($check,)+ })+);
        suite!(postgres: crate::database::postgres(), $($module { $($check,)+ })+);
    };
    ($kind:ident: $new:expr, $($module:ident { $($check:ident,)+ })+) => {
        mod $kind {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    if let Some(db) = $new {
                        crate::checks::$module::$check(db).await;
                    }
                })+
            })+
        }
    };
}

suite! {
    apps {
        an_app_is_read_back_as_it_was_made,
        apps_are_made_all_or_none,
        apps_are_listed_by_id_page_by_page,
        an_app_is_changed_or_left_alone,
        a_disabled_app_does_nothing_and_loses_nothing,
        a_deleted_app_takes_its_codes_and_families_with_it,
        usage_is_added_up_and_listed_by_app,
    }
    users {
        a_user_is_read_back_by_his_id_and_by_his_name,
        users_are_made_all_or_none,
        users_are_listed_by_name_page_by_page,
        a_user_is_changed_or_left_alone,
        a_disabled_user_has_no_session_left_and_gets_none_back,
        the_last_enabled_administrator_stays_one,
        a_deleted_user_leaves_nothing,
        a_new_password_ends_the_sessions_that_are_not_kept,
        a_password_is_replaced_only_while_it_is_in_force,
    }
    sessions {
        a_session_is_opened_with_the_password_that_is_in_force,
        a_session_is_read_back_as_it_was_opened,
        a_session_ends_at_its_limits_to_the_millisecond,
        a_clock_that_is_behind_does_not_shorten_a_session,
        a_repeated_answer_keeps_the_session_alive_too,
        live_sessions_are_listed_page_by_page_with_the_apps_that_hold_tokens,
        the_end_of_a_session_is_the_end_of_its_codes_and_families,
        all_sessions_of_a_user_end_and_nobody_elses,
        a_session_of_more_than_ends_in_one_step_is_dead_at_once_and_gone_after_a_purge,
        a_user_with_more_than_ends_in_one_step_is_deleted_whole,
        a_user_whose_sessions_take_several_steps_to_end_is_deleted_whole,
        all_sessions_of_a_user_end_however_many_there_are,
        an_app_is_told_once_though_sessions_take_several_steps_to_end,
        whatever_ends_a_session_owes_its_apps_a_call_each,
        an_app_whose_family_was_ended_by_a_replay_is_told_too,
    }
    codes {
        a_code_is_redeemed_for_the_family_that_it_stands_for,
        a_code_is_made_in_a_live_session_for_an_enabled_app,
        a_code_works_once_and_its_second_use_ends_what_the_first_gave_out,
        what_a_step_is_done_by_is_used_up_whatever_comes_of_it,
        a_try_by_another_app_changes_nothing,
        a_code_expires_to_the_millisecond_and_a_used_one_is_known_as_long_again,
    }
    refresh {
        each_use_of_the_newest_token_gives_the_next_generation,
        the_token_before_gets_the_same_successor_within_the_grace,
        an_older_token_ends_the_family_and_no_other,
        with_no_grace_a_token_works_once,
        a_generation_that_was_never_given_out_is_refused_and_ends_nothing,
        a_refresh_by_somebody_else_is_refused_and_ends_nothing,
        an_app_can_insist_on_its_own_credential,
        no_refresh_outlives_the_session,
    }
    logouts {
        calls_come_due_lane_by_lane_those_first_that_are_due_longest,
        what_became_of_a_try_is_noted,
        calls_are_given_up_after_a_day_and_shown_for_three_more,
        calls_are_listed_the_oldest_first_page_by_page_and_by_app,
        whoever_waits_is_told_that_calls_have_come_to_be_owed,
    }
    authorities {
        an_authority_is_read_back_and_its_name_is_its_own,
        authorities_are_listed_by_name_page_by_page,
        so_many_wait_and_no_more_until_the_first_has_waited_too_long,
        an_authority_that_waits_is_gone_to_the_millisecond,
        one_that_waits_gives_way_and_one_that_was_enabled_stays,
        a_name_that_waited_too_long_can_be_taken_by_a_change,
        whoever_arrives_is_found_by_his_link_then_by_his_name_then_made,
        settings_of_the_authority_and_of_the_user_are_heeded_at_that_moment,
        a_user_of_an_authority_is_one_user_here,
        links_go_with_either_end,
    }
    upkeep {
        what_was_used_stays_used_for_as_long_as_was_said,
        what_was_used_works_again_once_that_is_forgotten,
        a_signing_key_is_retired_and_forgotten,
        a_store_knows_what_it_was_made_for,
        a_purge_takes_what_has_ended_in_small_batches_and_nothing_that_lives,
        how_long_a_purge_is_overdue_is_known,
        everything_is_there_when_the_store_is_opened_again,
        a_store_that_is_well_has_not_failed,
    }
    transfer {
        an_export_has_every_record_once_in_the_documented_order,
        what_is_exported_makes_the_same_store_elsewhere,
        what_is_exported_makes_the_same_store_of_another_kind,
        what_is_half_ended_goes_to_another_kind_of_store_and_back,
        an_export_is_of_one_moment_whatever_is_written_meanwhile,
        a_store_that_was_never_used_is_empty,
        an_export_that_nobody_receives_ends,
    }
    random {
        whatever_is_done_the_store_and_the_model_agree,
    }
    races {
        a_code_redeemed_by_many_at_once_has_one_winner,
        a_refresh_token_used_by_many_at_once_has_one_successor,
        a_refresh_token_used_by_many_at_once_works_once_where_there_is_no_grace,
        something_used_up_by_many_at_once_is_given_to_one,
        a_sign_out_beside_redeeming_and_refreshing_leaves_nothing_alive,
        a_session_is_ended_by_one_of_many,
        who_is_disabled_or_gets_another_password_while_he_signs_in_is_not_in,
        a_password_replaced_by_many_at_once_is_replaced_by_one,
        two_who_take_the_last_administrators_away_at_once_leave_one,
        no_change_is_lost_to_another_at_the_same_time,
        a_race_for_a_name_has_one_winner,
        two_who_arrive_at_once_as_the_same_subject_of_an_authority_are_one_user,
        a_race_for_the_last_places_is_won_by_as_many_as_there_are,
    }
}

/// Whether a store stands a check. One that a broken store keeps waiting has failed, too.
async fn stands(check: &Check, db: Db, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, tokio::spawn((check.run)(db))).await, Ok(Ok(())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_breaks_a_promise_does_not_stand_the_suite() {
    for (fault, check) in FAULTS {
        let check = CHECKS.iter().find(|known| known.name == *check).unwrap_or_else(|| panic!("{check} is no check"));
        assert!(stands(check, sled(), Duration::from_mins(10)).await, "{}: a good store", check.name);
        assert!(!stands(check, broken(sled(), *fault), Duration::from_mins(1)).await, "{fault:?} is not caught by {}", check.name);
    }
}

/// How many rounds G4 of the security goals asks for.
const MANY: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: three races of 10,000 rounds"]
async fn g4_ten_thousand_races_have_one_winner_each() {
    checks::races::race_for_codes(sled(), MANY).await;
    checks::races::race_for_refresh(sled(), MANY).await;
    checks::races::race_to_use_once(sled(), MANY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a thousand histories of a hundred steps"]
async fn a_thousand_histories_agree_with_the_model() {
    checks::random::histories(sled(), 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: histories for every fault until it shows"]
async fn the_model_alone_sees_every_fault_that_it_could() {
    let unseen = [
        Fault::CodeIsRaced,
        Fault::UpdateIsLost,
        Fault::BatchIsHalfDone,
        Fault::PagesOverlap,
        Fault::UseIsRaced,
        Fault::UsageIsDoubled,
        Fault::LinkIsOverwritten,
        Fault::AnyNumberWaits,
        Fault::LastKeyRetires,
        Fault::SecondFounderWins,
        Fault::NothingIsOverdue,
        Fault::OpenedAgainItIsEmpty,
        Fault::ExportIsNotWhole,
        Fault::ExportIsOfTwoMoments,
        Fault::ImportedStaysForEver,
    ];
    for (fault, _) in FAULTS.iter().filter(|(fault, _)| !unseen.contains(fault)) {
        let histories = checks::random::histories(broken(sled(), *fault), 20 * checks::random::HISTORIES);
        assert!(tokio::spawn(histories).await.is_err(), "{fault:?} is not seen");
    }
}
