use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000).after(Duration::from_secs(seconds))
}

#[tokio::test]
async fn the_latest_time_goes_back_with_a_clock_that_was_far_ahead_and_with_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    for (now, latest) in [(at(1000), at(1000)), (at(400), at(1000)), (at(500_000), at(500_000)), (at(1100), at(1100))] {
        store.purge(now).await.unwrap();
        assert_eq!(store.latest().await, Ok(latest));
    }
}
