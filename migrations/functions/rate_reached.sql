-- Returns p_rate_limit, which may be null, when consumers take messages as fast as it lets them: so much is missing in the bucket.
create or replace function fastpubsub.rate_reached(
    p_rate_limit double precision,
    p_full_at timestamptz,
    p_now timestamptz
) returns double precision
language sql immutable
as $$
select
    case
        when fastpubsub.bucket_messages(p_rate_limit, p_full_at, p_now) < greatest(p_rate_limit / 2, 1)
            then p_rate_limit
    end;
$$;
