-- Every claim locks its row of this table first: so those that write what follows have ended, and no other one begins.
lock table fastpubsub.cursors in access exclusive mode;
-- Leases of lonely messages, of which the servers of before know one kind.
update fastpubsub.leases set turn = 0 where turn = -1;
-- What was put aside comes again, with what is leased or waits: the servers of before know no line.
do $$
declare
    v_cursor fastpubsub.cursors;
begin
    for v_cursor in select c.* from fastpubsub.cursors as c where c.fair_by is not null loop
        perform fastpubsub.seek_subscription(
            v_cursor.topic_key, v_cursor.subscription_key, 'message', null,
            fastpubsub.unsettled_position(v_cursor.topic_key, v_cursor.subscription_key) + 1
        );
    end loop;
end;
$$;
alter table fastpubsub.cursors drop column fair_by;
drop table fastpubsub.bundles;
drop table fastpubsub.refused_messages;
drop index fastpubsub.changes_object_id, fastpubsub.changes_kind, fastpubsub.changes_changed_at, fastpubsub.changes_client;
drop index fastpubsub.cursors_dead_letter_topic;
