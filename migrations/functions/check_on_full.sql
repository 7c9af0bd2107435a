-- What the cursor of an ordered or fair subscription passes of a busy key is put aside, and comes all the same: so nothing can
-- be dropped there. One that is ordered lets its keys take turns anyway.
create or replace function fastpubsub.check_on_full(p_ordered boolean, p_on_full text, p_fair_by text default null) returns void
language plpgsql immutable as $$
begin
    if p_ordered and p_on_full <> 'reject' then
        raise exception using
            errcode = 'FP422',
            message = format('on_full: an ordered subscription cannot have "%s", because it passes no message of a key: use "reject"', p_on_full);
    end if;
    if p_fair_by is not null and p_on_full <> 'reject' then
        raise exception using
            errcode = 'FP422',
            message = format('on_full: a subscription with fair_by cannot have "%s", because it passes no message of a key: use "reject"', p_on_full);
    end if;
    if p_ordered and p_fair_by is not null then
        raise exception using
            errcode = 'FP422',
            message = 'fair_by: an ordered subscription lets its keys take turns already: leave fair_by out, or ordered';
    end if;
end;
$$;
