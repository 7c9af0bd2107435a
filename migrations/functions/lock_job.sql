-- Returns whether this transaction may run the job. A row lock, which ends with the transaction, admits one process at a time.
create or replace function fastpubsub.lock_job(p_name text, p_wait boolean) returns boolean
language plpgsql volatile as $$
begin
    if p_wait then
        perform from fastpubsub.jobs as j where j.name = p_name for update;
    else
        perform from fastpubsub.jobs as j where j.name = p_name for update skip locked;
    end if;
    return found;
end;
$$;
