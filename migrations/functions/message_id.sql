-- The id of a message, as fastpubsub/message_ids.py writes it.
create or replace function fastpubsub.message_id(p_topic_key bigint, p_position bigint, p_created_at timestamptz) returns text
language sql immutable
as $$
    select format(
        '%s-%s-7%s-%s-%s', left(i.head, 8), right(i.head, 4), lpad(to_hex(p_topic_key >> 20), 3, '0'), left(i.tail, 4), right(i.tail, 12)
    )
    from (
        select
            lpad(to_hex(floor(extract(epoch from p_created_at) * 1000)::bigint), 12, '0') as head,
            to_hex((1::bigint << 63) | ((p_topic_key & ((1 << 20) - 1)) << 42) | p_position) as tail
    ) as i;
$$;
