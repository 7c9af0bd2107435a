-- Whether a transaction of an application that has not ended yet settles deliveries with this token. Keeps no lock.
create or replace function fastpubsub.is_being_settled(p_token bigint) returns boolean
language plpgsql volatile
as $$
begin
    if pg_try_advisory_lock(fastpubsub.transaction_lock(p_token)) then
        perform pg_advisory_unlock(fastpubsub.transaction_lock(p_token));
        return false;
    end if;
    return true;
end;
$$;
