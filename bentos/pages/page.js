fetch("readyz").then(async (response) => {
  const health = await response.json();
  const state = document.getElementById("state");
  state.textContent = response.ok ? "ready: it answered its example just now" : "not ready";
  state.className = response.ok ? "ready" : "not";
  for (const warning of health.warnings) {
    document.getElementById("warnings").append(Object.assign(document.createElement("p"), { textContent: "Warning: " + warning }));
  }
});
document.getElementById("call").textContent = document.getElementById("call").textContent.replaceAll("ADDRESS", location.origin);
document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target), subject = form.get("subject").trim();
  const headers = { authorization: "Bearer " + form.get("key"), "content-type": "application/json" };
  const jobs = "v1/training-jobs", answer = document.getElementById("answer");
  const body = JSON.stringify(subject ? { subject_id: subject } : {});
  try {
    const asked = await fetch(jobs, { method: "POST", headers, body });
    const told = await asked.json();
    if (!asked.ok) throw new Error(told.detail);
    const query = subject ? "?subject_id=" + encodeURIComponent(subject) : "";
    const known = (await (await fetch(jobs + query, { headers })).json()).jobs.filter((job) => job.finished_at);
    const before = known.length ? " The last decision was " + known[0].status + ": " + known[0].reason + "." : "";
    answer.textContent = "It waits for the next run of make retrain." + before;
  } catch (error) {
    answer.textContent = "It was not asked for: " + error.message;
  }
});
