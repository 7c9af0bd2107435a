-- When a message comes again whose wait, until p_due_at, jitter makes shorter by up to p_seconds: at one of 16 times within them. These are
-- multiples of a sixteenth of p_seconds, so what fails within so long comes again at the same times. Which one it is, the attempt decides
-- and which ten positions the message is of: who sits next to it in a lease comes with it.
create or replace function fastpubsub.draw_due_at(
    p_due_at timestamptz,
    p_seconds double precision,
    p_position bigint,
    p_attempts integer
) returns timestamptz
language sql immutable
as $$
select date_bin(
    make_interval(secs => p_seconds / 16),
    p_due_at - make_interval(secs => p_seconds / 16) * (get_byte(sha256(int8send(p_position / 10) || int4send(p_attempts)), 0) >> 4),
    timestamptz 'epoch'
);
$$;
