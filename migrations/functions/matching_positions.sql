-- Returns the positions in (p_after, p_to] whose messages match, in order, at most p_limit. A payload that cannot be read as jsonb does
-- not match and raises no error: it is reported in `unreadable`.
create or replace function fastpubsub.matching_positions(
    p_topic_key bigint,
    p_after bigint,
    p_to bigint,
    p_path jsonpath,
    p_limit integer,
    out positions bigint [],
    out unreadable bigint []
)
language plpgsql volatile
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
#variable_conflict use_column
declare
    v_message record;
    v_reads_payload boolean := p_path::text !~ '^strict \$"(attributes|message)"';
begin
    begin
        if strpos(p_path::text, '$"message"') > 0 then
            select array_agg(f.position) into positions
            from (
                select m.position from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
                    and jsonb_path_exists(
                        case when v_reads_payload then m.payload::jsonb else 'null' end, p_path,
                        jsonb_build_object(
                            'attributes', m.attributes,
                            'message',
                            case when m.ordering_key is null then '{}' else jsonb_build_object('ordering_key', m.ordering_key) end
                        ),
                        true
                    )
                order by m.position
                limit p_limit
            ) as f;
        elsif strpos(p_path::text, '$"attributes"') = 0 then
            select array_agg(f.position) into positions
            from (
                select m.position from fastpubsub.messages as m
                where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to and m.payload::jsonb @? p_path
                order by m.position
                limit p_limit
            ) as f;
        else
            select array_agg(f.position) into positions
            from (
                select m.position from fastpubsub.messages as m
                where
                    m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
                    and jsonb_path_exists(
                        case when v_reads_payload then m.payload::jsonb else 'null' end, p_path,
                        jsonb_build_object('attributes', m.attributes), true
                    )
                order by m.position
                limit p_limit
            ) as f;
        end if;
        return;
    exception when data_exception or program_limit_exceeded then
        positions := null;
    end;
    for v_message in
        select m.position, m.payload, m.attributes, m.ordering_key from fastpubsub.messages as m
        where m.topic_key = p_topic_key and m.position > p_after and m.position <= p_to
        order by m.position
    loop
        begin
            if fastpubsub.passes_filter(v_message.payload, v_message.attributes, p_path, v_message.ordering_key) then
                positions := positions || v_message.position;
            end if;
        exception when data_exception or program_limit_exceeded then
            unreadable := unreadable || v_message.position;
        end;
        exit when cardinality(positions) >= p_limit;
    end loop;
end;
$$;
