// A client of the service in TypeScript, without packages; Node 22.18 or newer runs it as it is:
//   HALLMARK_KEY=… node examples/client.ts examples/glucose.json http://localhost:3000
// Types of every request and answer: npx openapi-typescript http://localhost:3000/openapi.json

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

interface Problem {
  status: number;
  title: string;
  detail: string;
}

interface Answered<Answer> {
  status: "answered";
  prediction_id: string;
  evidence: Record<string, string>;
  answer: Answer;
}

type Row<Answer> = Answered<Answer> | { status: "problem"; problem: Problem };

const RETRIED = new Set([408, 429, 500, 502, 503, 504]);

/** The service, or a proxy before it, has refused a call. */
class Refused extends Error {}

async function why(response: Response): Promise<string> {
  const text = await response.text(); // a proxy may answer with a page
  try {
    const problem = JSON.parse(text) as Problem;
    return `${problem.title}: ${problem.detail}`;
  } catch {
    return `status ${response.status}`;
  }
}

/** Answer rows, each with its own error. A repeated call with the same key records nothing twice. */
export async function predict<Answer>(address: string, key: string, rows: unknown[], tries = 5): Promise<Row<Answer>[]> {
  const headers = {
    authorization: `Bearer ${key}`,
    "content-type": "application/json",
    "idempotency-key": randomUUID(),
  };
  for (let attempt = 1; ; attempt++) {
    let asked = 0;
    try {
      const body = JSON.stringify({ rows });
      const signal = AbortSignal.timeout(60_000);
      const response = await fetch(`${address}/v1/predict`, { method: "POST", headers, body, signal });
      if (response.ok) return ((await response.json()) as { rows: Row<Answer>[] }).rows;
      if (!RETRIED.has(response.status) || attempt === tries) throw new Refused(await why(response));
      asked = Number(response.headers.get("retry-after")) || 0;
    } catch (error) {
      if (error instanceof Refused || attempt === tries) throw error; // otherwise the service could not be reached
    }
    const pause = Math.max(asked, 0.2 * 2 ** attempt * Math.random());
    await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
  }
}

/** Yield the text of a generating task while it is made. */
export async function* stream(address: string, key: string, request: unknown): AsyncGenerator<string> {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const response = await fetch(`${address}/v1/stream`, { method: "POST", headers, body: JSON.stringify(request) });
  if (!response.ok || response.body === null) throw new Refused(await why(response));
  let rest = "";
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (rest + part).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data:"));
      if (event.startsWith("event: piece") && data) yield (JSON.parse(data.slice(5)) as { text: string }).text;
    }
  }
}

const [file, address = "http://localhost:3000"] = process.argv.slice(2);
if (file) {
  const request: unknown = JSON.parse(readFileSync(file, "utf8"));
  const key = process.env.HALLMARK_KEY ?? "";
  try {
    for (const row of await predict<{ status: string; reason: string }>(address, key, [request])) {
      if (row.status === "problem") console.error(row.problem.detail);
      else console.log(row.prediction_id, row.answer.status, row.answer.reason);
    }
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
