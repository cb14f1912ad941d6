//! A refresh token that was replaced, and a service that was killed: the successor is the same.

use crate::harness::{Case, Op, Pair, Setup, Via, World, refresh};

#[tokio::test]
async fn a29_the_successor_is_the_same_after_the_service_was_killed_or_restarted() {
    let mut world = World::own(Setup::default().argument("--refresh-grace", "300")).await;
    for end in [Pair::kill as fn(&mut Pair), Pair::terminate] {
        let (app, _, _, first) = world.family().await;
        let by_app = refresh(Op::TokenV2, &first.refresh).by(app.who());
        let second = world.call(Via::Envoy, &by_app).await.tokens();
        world.restart(end);
        for via in Via::BOTH {
            let again = world.call(via, &by_app).await.tokens();
            assert_eq!(again.refresh, second.refresh);
            assert!(world.is_valid(&app, &again.access).await && world.is_valid(&app, &second.access).await);
        }
        let third = world.call(Via::Envoy, &refresh(Op::TokenV2, &second.refresh).by(app.who())).await.tokens();
        world.restart(end);
        // That the successor was used is remembered, too.
        world.call(Via::Envoy, &by_app).await.refused(Case::Grant);
        assert!(!world.is_valid(&app, &third.access).await);
    }
}
