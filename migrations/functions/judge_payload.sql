-- Whether a message would pass a filter, and which field decides (deciding_field).
create or replace function fastpubsub.judge_payload(
    p_filter json,
    p_payload json,
    p_attributes jsonb,
    p_ordering_key text default null,
    out field text,
    out expected json,
    out actual json,
    out actual_bytes integer,
    out similar_field text,
    out is_readable boolean
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    select d.* into judge_payload.field, judge_payload.expected, judge_payload.actual, judge_payload.actual_bytes,
        judge_payload.similar_field, judge_payload.is_readable
    from fastpubsub.deciding_field(
        p_payload, p_attributes, case when fastpubsub.compile_filter(p_filter) is not null then p_filter end, p_ordering_key
    ) as d;
end;
$$;
