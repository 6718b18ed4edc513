// graphile-worker in one process, with the options that the first argument gives as JSON. Lines: lines.py.
import { POLL_MS, begun, packages, rest, serve, submitted, tell } from "./lines.mjs";

const { run, makeWorkerUtils, Logger } = packages("graphile-worker");
const pgPool = new (packages("pg").Pool)({ connectionString: process.env.DATABASE_URL, max: 30 });
const logger = new Logger(() => () => {});
const worker = { pollInterval: 2000, maxPoolSize: 30, ...JSON.parse(process.argv[2]) };
const utils = await makeWorkerUtils({ pgPool, logger });
await utils.migrate();
const ADD = `SELECT count(*) FROM graphile_worker.add_jobs(array(
  SELECT ('noop', '{}'::json, null, null, null, null, null, null)::graphile_worker.job_spec FROM generate_series(1, $1::int)))`;
const start = (noop) => run({ pgPool, logger, noHandleSignals: true, taskList: { noop }, preset: { worker } });
let runner;

await serve({
  fill: async (count) => {
    for (let left = Number(count); left > 0; left -= 1000) await pgPool.query(ADD, [Math.min(1000, left)]);
    return "filled";
  },
  drain: async () => {
    const left = "SELECT 1 FROM graphile_worker._private_jobs LIMIT 1";
    const waiting = (await pgPool.query("SELECT count(*)::int AS n FROM graphile_worker._private_jobs")).rows[0].n;
    let done = 0;
    begun();
    runner = await start(async () => { done += 1; });
    while (done < waiting) await rest(POLL_MS);
    while ((await pgPool.query(left)).rowCount) await rest(POLL_MS);
    return "done";
  },
  start: async () => {
    runner = await start(async () => tell());
    await rest(1000);
    return "started";
  },
  submit: () => submitted(() => utils.addJob("noop", {})),
});
await runner?.stop();
process.exit(0);
