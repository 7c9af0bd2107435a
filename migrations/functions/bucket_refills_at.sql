-- When the bucket of bucket_messages is full again after p_taken messages of it were handed out.
create or replace function fastpubsub.bucket_refills_at(
    p_rate_limit double precision,
    p_full_at timestamptz,
    p_now timestamptz,
    p_taken integer
) returns timestamptz
language sql stable
as $$
select
    p_now + make_interval(
        secs => (greatest(p_rate_limit, 1) - fastpubsub.bucket_messages(p_rate_limit, p_full_at, p_now) + p_taken) / p_rate_limit
    );
$$;
