// pg-boss: fetch and complete in batches of 500 for a backlog, a worker that polls as often as it may for the hand-off. Lines: lines.py.
import { begun, packages, rest, serve, submitted, tell } from "./lines.mjs";

const PgBoss = packages("pg-boss");
const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, max: 20, supervise: false, schedule: false });
boss.on("error", console.error);
await boss.start();
await boss.createQueue("jobs");

await serve({
  fill: async (count) => {
    for (let left = Number(count); left > 0; left -= 1000)
      await boss.insert(Array.from({ length: Math.min(1000, left) }, () => ({ name: "jobs", data: {} })));
    return "filled";
  },
  drain: async () => {
    begun();
    for (;;) {
      const jobs = await boss.fetch("jobs", { batchSize: 500 });
      if (!jobs?.length) return "done";
      await boss.complete("jobs", jobs.map((job) => job.id));
    }
  },
  start: async () => {
    await boss.work("jobs", { pollingIntervalSeconds: 0.5 }, async () => tell());
    await rest(1000);
    return "started";
  },
  submit: () => submitted(() => boss.send("jobs", {})),
});
await boss.stop({ graceful: false });
process.exit(0);
