-- functions/ack_messages.sql
drop function fastpubsub.ack_messages;

-- functions/begin_call.sql
drop function fastpubsub.begin_call;

-- functions/browse_messages.sql
drop function fastpubsub.browse_messages;

-- functions/but_values.sql
drop function fastpubsub.but_values;

-- functions/cancel_redrive.sql
drop function fastpubsub.cancel_redrive;

-- functions/check_attributes.sql
drop function fastpubsub.check_attributes;

-- functions/check_payload.sql
drop function fastpubsub.check_payload;

-- functions/claim_messages.sql
drop function fastpubsub.claim_messages;

-- functions/compile_filter.sql
drop function fastpubsub.compile_filter;

-- functions/count_ahead.sql
drop function fastpubsub.count_ahead;

-- functions/create_client.sql
drop function fastpubsub.create_client;

-- functions/create_redrive.sql
drop function fastpubsub.create_redrive;

-- functions/create_subscription.sql
drop function fastpubsub.create_subscription;

-- functions/create_topic.sql
drop function fastpubsub.create_topic;

-- functions/cursor_position.sql
drop function fastpubsub.cursor_position;

-- functions/cut_leases.sql
drop function fastpubsub.cut_leases;

-- functions/deciding_field.sql
drop function fastpubsub.deciding_field;

-- functions/delete_client.sql
drop function fastpubsub.delete_client;

-- functions/delete_subscription.sql
drop function fastpubsub.delete_subscription;

-- functions/delete_topic.sql
drop function fastpubsub.delete_topic;

-- functions/empty_purges.sql
drop function fastpubsub.empty_purges;

-- functions/end_deliveries.sql
drop function fastpubsub.end_deliveries;

-- functions/explain_in_subscriptions.sql
drop function fastpubsub.explain_in_subscriptions;

-- functions/explain_message.sql
drop function fastpubsub.explain_message;

-- functions/extend_leases.sql
drop function fastpubsub.extend_leases;

-- functions/filter_condition.sql
drop function fastpubsub.filter_condition;

-- functions/filter_pattern.sql
drop function fastpubsub.filter_pattern;

-- functions/find_client_credentials.sql
drop function fastpubsub.find_client_credentials;

-- functions/find_message.sql
drop function fastpubsub.find_message;

-- functions/first_position.sql
drop function fastpubsub.first_position;

-- functions/get_client.sql
drop function fastpubsub.get_client;

-- functions/get_client_state.sql
drop function fastpubsub.get_client_state;

-- functions/get_schema.sql
drop function fastpubsub.get_schema;

-- functions/get_topic.sql
drop function fastpubsub.get_topic;

-- functions/held_leases.sql
drop function fastpubsub.held_leases;

-- functions/hold_job.sql
drop function fastpubsub.hold_job;

-- functions/inspect_kept_messages.sql
drop function fastpubsub.inspect_kept_messages;

-- functions/inspect_leases.sql
drop function fastpubsub.inspect_leases;

-- functions/inspect_outbox.sql
drop function fastpubsub.inspect_outbox;

-- functions/inspect_tables.sql
drop function fastpubsub.inspect_tables;

-- functions/is_deeper.sql
drop function fastpubsub.is_deeper;

-- functions/is_found.sql
drop function fastpubsub.is_found;

-- functions/is_jsonb.sql
drop function fastpubsub.is_jsonb;

-- functions/is_paused.sql
drop function fastpubsub.is_paused;

-- functions/judge_last_messages.sql
drop function fastpubsub.judge_last_messages;

-- functions/judge_payload.sql
drop function fastpubsub.judge_payload;

-- functions/kept_log.sql
drop function fastpubsub.kept_log;

-- functions/last_position.sql
drop function fastpubsub.last_position;

-- functions/lease_runs.sql
drop function fastpubsub.lease_runs;

-- functions/lift_stranded_retries.sql
drop function fastpubsub.lift_stranded_retries;

-- functions/list_changes.sql
drop function fastpubsub.list_changes;

-- functions/list_clients.sql
drop function fastpubsub.list_clients;

-- functions/list_consumers.sql
drop function fastpubsub.list_consumers;

-- functions/list_dead_letter_reasons.sql
drop function fastpubsub.list_dead_letter_reasons;

-- functions/list_dead_letters.sql
drop function fastpubsub.list_dead_letters;

-- functions/list_expired_leases.sql
drop function fastpubsub.list_expired_leases;

-- functions/list_flows.sql
drop function fastpubsub.list_flows;

-- functions/list_history.sql
drop function fastpubsub.list_history;

-- functions/list_kept_messages.sql
drop function fastpubsub.list_kept_messages;

-- functions/list_loads.sql
drop function fastpubsub.list_loads;

-- functions/list_outbox.sql
drop function fastpubsub.list_outbox;

-- functions/list_ready_subscriptions.sql
drop function fastpubsub.list_ready_subscriptions;

-- functions/list_redrives.sql
drop function fastpubsub.list_redrives;

-- functions/list_rhythms.sql
drop function fastpubsub.list_rhythms;

-- functions/list_running_redrives.sql
drop function fastpubsub.list_running_redrives;

-- functions/list_stranded_retries.sql
drop function fastpubsub.list_stranded_retries;

-- functions/list_subscription_figures.sql
drop function fastpubsub.list_subscription_figures;

-- functions/list_subscription_metrics.sql
drop function fastpubsub.list_subscription_metrics;

-- functions/list_subscriptions.sql
drop function fastpubsub.list_subscriptions;

-- functions/list_topic_figures.sql
drop function fastpubsub.list_topic_figures;

-- functions/list_topic_metrics.sql
drop function fastpubsub.list_topic_metrics;

-- functions/list_topics.sql
drop function fastpubsub.list_topics;

-- functions/list_trimmable.sql
drop function fastpubsub.list_trimmable;

-- functions/listen_to_servers.sql
drop function fastpubsub.listen_to_servers;

-- functions/lock_job.sql
drop function fastpubsub.lock_job;

-- functions/lock_subscription.sql
drop function fastpubsub.lock_subscription;

-- functions/matching_positions.sql
drop function fastpubsub.matching_positions;

-- functions/message_created_at.sql
drop function fastpubsub.message_created_at;

-- functions/move_cursor.sql
drop function fastpubsub.move_cursor;

-- functions/nack_messages.sql
drop function fastpubsub.nack_messages;

-- functions/notify_servers.sql
drop function fastpubsub.notify_servers;

-- functions/oldest_transaction.sql
drop function fastpubsub.oldest_transaction;

-- functions/passes_filter.sql
drop function fastpubsub.passes_filter;

-- functions/pause_subscription.sql
drop function fastpubsub.pause_subscription;

-- functions/position_before.sql
drop function fastpubsub.position_before;

-- functions/preview_filter.sql
drop function fastpubsub.preview_filter;

-- functions/preview_seek.sql
drop function fastpubsub.preview_seek;

-- functions/publish.sql
drop function fastpubsub.publish;

-- functions/publish_messages.sql
drop function fastpubsub.publish_messages;

-- functions/publish_messages_once.sql
drop function fastpubsub.publish_messages_once;

-- functions/publish_to_topics.sql
drop function fastpubsub.publish_to_topics;

-- functions/purge_dead_letters.sql
drop function fastpubsub.purge_dead_letters;

-- functions/purge_subscription.sql
drop function fastpubsub.purge_subscription;

-- functions/read_log.sql
drop function fastpubsub.read_log;

-- functions/read_matching_log.sql
drop function fastpubsub.read_matching_log;

-- functions/read_messages.sql
drop function fastpubsub.read_messages;

-- functions/recent_rates.sql
drop function fastpubsub.recent_rates;

-- functions/record_change.sql
drop function fastpubsub.record_change;

-- functions/record_consumers.sql
drop function fastpubsub.record_consumers;

-- functions/record_history.sql
drop function fastpubsub.record_history;

-- functions/reject_messages.sql
drop function fastpubsub.reject_messages;

-- functions/relay_messages.sql
drop function fastpubsub.relay_messages;

-- functions/release_expired_leases.sql
drop function fastpubsub.release_expired_leases;

-- functions/remember_filter.sql
drop function fastpubsub.remember_filter;

-- functions/remember_seek.sql
drop function fastpubsub.remember_seek;

-- functions/reprocess_dead_letters.sql
drop function fastpubsub.reprocess_dead_letters;

-- functions/requeue_messages.sql
drop function fastpubsub.requeue_messages;

-- functions/require_subscription.sql
drop function fastpubsub.require_subscription;

-- functions/resolve_subscription.sql
drop function fastpubsub.resolve_subscription;

-- functions/resolve_topic.sql
drop function fastpubsub.resolve_topic;

-- functions/return_leases.sql
drop function fastpubsub.return_leases;

-- functions/revoke_client_secret.sql
drop function fastpubsub.revoke_client_secret;

-- functions/rotate_client_secret.sql
drop function fastpubsub.rotate_client_secret;

-- functions/scan_log.sql
drop function fastpubsub.scan_log;

-- functions/schema_version.sql
drop function fastpubsub.schema_version;

-- functions/scopes_cover.sql
drop function fastpubsub.scopes_cover;

-- functions/seek_subscription.sql
drop function fastpubsub.seek_subscription;

-- functions/settle_and_claim.sql
drop function fastpubsub.settle_and_claim;

-- functions/sought_position.sql
drop function fastpubsub.sought_position;

-- functions/step_redrive.sql
drop function fastpubsub.step_redrive;

-- functions/subscription_metrics.sql
drop function fastpubsub.subscription_metrics;

-- functions/sum_topics.sql
drop function fastpubsub.sum_topics;

-- functions/take_due_retries.sql
drop function fastpubsub.take_due_retries;

-- functions/take_leases.sql
drop function fastpubsub.take_leases;

-- functions/trim_changes.sql
drop function fastpubsub.trim_changes;

-- functions/trim_claims.sql
drop function fastpubsub.trim_claims;

-- functions/trim_consumers.sql
drop function fastpubsub.trim_consumers;

-- functions/trim_history.sql
drop function fastpubsub.trim_history;

-- functions/trim_messages.sql
drop function fastpubsub.trim_messages;

-- functions/update_client.sql
drop function fastpubsub.update_client;

-- functions/update_subscription.sql
drop function fastpubsub.update_subscription;

-- functions/update_topic.sql
drop function fastpubsub.update_topic;

-- functions/value_condition.sql
drop function fastpubsub.value_condition;

-- functions/were_created_at.sql
drop function fastpubsub.were_created_at;
