// Asks for a page of a list, with figures where the server has them.

import {get, Refused} from "../lib/api.js";
import {pageOf} from "./pager.js";

export const LIMIT = 50;

export async function listed(path, query, {topic_id} = {}, signal) {
  const page = {limit: LIMIT, topic_id, ...pageOf(query)};
  try {
    return await get(path, {...page, q: query.q, include: "metrics"}, signal);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 422) throw error;
    return get(path, page, signal);
  }
}

export async function oneOf(path, signal) {
  try {
    return await get(path, {include: "metrics"}, signal);
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 422) throw error;
    return get(path, {}, signal);
  }
}
