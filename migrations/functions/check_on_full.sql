-- What the cursor of an ordered subscription passes of a busy key is put aside, and comes all the same: so nothing can
-- be dropped there.
create or replace function fastpubsub.check_on_full(p_ordered boolean, p_on_full text) returns void
language plpgsql immutable as $$
begin
    if p_ordered and p_on_full <> 'reject' then
        raise exception using
            errcode = 'FP422',
            message = format('on_full: an ordered subscription cannot have "%s", because it passes no message of a key: use "reject"', p_on_full);
    end if;
end;
$$;
