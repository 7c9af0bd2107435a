-- The first statement of every procedure that writes. A session cannot weaken these settings: they hold to the end of the transaction.
create or replace function fastpubsub.begin_call(p_durable boolean) returns void
language plpgsql as $$
begin
    -- At the commit of an application's transaction (settle_at_commit), whose settings are its own.
    if pg_trigger_depth() > 0 then
        return;
    end if;
    -- A snapshot older than the lock would not see what the lock's last holder committed.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception using
            errcode = '25000',
            message = 'fastpubsub needs the isolation level read committed, not ' || current_setting('transaction_isolation');
    end if;
    perform set_config('lock_timeout', coalesce(nullif(current_setting('fastpubsub.lock_timeout', true), ''), '2s'), true);
    if not p_durable then
        perform set_config('synchronous_commit', 'off', true);
    elsif current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end;
$$;
