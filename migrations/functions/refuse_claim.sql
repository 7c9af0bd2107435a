-- Says to a consumer that pulls, or to a dispatcher, that the messages are for the other.
create or replace function fastpubsub.refuse_claim(p_is_pushed boolean) returns void
language plpgsql volatile
as $$
begin
    raise exception using
        errcode = 'FP409',
        message = case
            when p_is_pushed
                then 'the messages of this subscription are pushed to its endpoint; change it with "push": null before you pull them'
            else 'the messages of this subscription are not pushed'
        end;
end;
$$;
