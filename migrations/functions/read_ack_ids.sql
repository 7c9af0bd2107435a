-- Reads the ack ids of an application: a message id, whose bits are those of fastpubsub/message_ids.py, and the token of the delivery.
-- Those of another topic are left out: they are held by nobody here. FP422: texts that are no ack ids, the same one twice, too many.
create or replace function fastpubsub.read_ack_ids(
    p_topic_key bigint,
    p_ack_ids text [],
    out positions bigint [],
    out tokens bigint []
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    c_shape constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[.][0-9a-f]{16}$';
    v_wrong bigint;
begin
    if p_ack_ids is null or cardinality(p_ack_ids) not between 1 and 1000 then
        raise exception using errcode = 'FP422', message = 'pass an array of 1 to 1,000 ack ids';
    end if;
    select min(u.ordinal) into v_wrong
    from unnest(p_ack_ids) with ordinality as u (ack_id, ordinal)
    where u.ack_id is null or u.ack_id !~* c_shape;
    if v_wrong is not null then
        raise exception using
            errcode = 'FP422',
            message = format('the text %s of the array is no ack id', v_wrong),
            hint = 'Pass the `ack_id` of a message that was pulled, not its `id`.';
    elsif (select count(distinct lower(u)) < count(*) from unnest(p_ack_ids) as u) then
        raise exception using errcode = 'FP422', message = 'the array has an ack id twice';
    end if;
    select coalesce(array_agg(i.low & 4398046511103), '{}'), coalesce(array_agg(i.token), '{}') into positions, tokens
    from (
        select
            ('x' || substr(u.digits, 14, 3))::bit(12)::integer::bigint << 20 as topic_high,
            ('x' || substr(u.digits, 17, 16))::bit(64)::bigint as low,
            ('x' || substr(u.digits, 33, 16))::bit(64)::bigint as token
        from (select translate(a, '-.', '') as digits from unnest(p_ack_ids) as a) as u
    ) as i
    where (i.topic_high | (i.low >> 42 & 1048575)) = p_topic_key;
end;
$$;
