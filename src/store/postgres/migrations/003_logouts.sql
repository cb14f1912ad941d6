-- For listing the calls that were given up, page by page.
CREATE INDEX IF NOT EXISTS logouts_shown ON logouts (id) WHERE given_up_at IS NOT NULL;
