-- Only an ordered subscription has keys that a dead letter can hold.
create or replace function fastpubsub.check_on_dead_letter(p_ordered boolean, p_on_dead_letter text) returns void
language plpgsql immutable as $$
begin
    if p_on_dead_letter = 'hold' and not p_ordered then
        raise exception using
            errcode = 'FP422',
            message = 'on_dead_letter: hold keeps a key in order, so it needs a subscription with ordered: true';
    end if;
end;
$$;
