create or replace function fastpubsub.delete_schedule(p_topic_key bigint, p_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
    perform fastpubsub.begin_call(true);
    perform fastpubsub.lock_topic(p_topic_key, null);
    delete from fastpubsub.schedules as s where s.topic_key = p_topic_key and s.id = p_id;
    if not found then
        raise exception using errcode = 'FP404', message = format('this topic has no schedule "%s"', p_id);
    end if;
end;
$$;
