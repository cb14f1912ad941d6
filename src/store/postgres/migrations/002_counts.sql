-- What failures and good credentials leave behind, until it runs out: see src/core/throttle/counts.rs. Nothing of it is promised to anybody,
-- so it is in no log of the database: counting waits for no disk and no standby, and after a crash or a failover all counts are free.
CREATE UNLOGGED TABLE IF NOT EXISTS counts (
    place bigint PRIMARY KEY,
    until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS counts_until ON counts (until);
