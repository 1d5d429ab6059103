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
