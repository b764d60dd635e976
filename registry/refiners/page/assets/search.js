// The search of the first page. It writes what it reads as text, never as markup.
"use strict";

(() => {
  const form = document.getElementById("search");
  const query = document.getElementById("query");
  const count = document.getElementById("count");
  const results = document.getElementById("results");
  const hits = document.getElementById("hits");
  const more = document.getElementById("more");
  const browse = document.getElementById("browse");
  const card = document.getElementById("card");
  const filters = ["base", "kind", "licence", "status"].map((name) => form.elements[name]);
  const total = Number(form.dataset.shards);
  const PAGE = 24;
  // The values of the filters are in the page, in the order that the rows count them by.
  const values = (select, first) => [...select.options].slice(first).map((option) => option.value);
  const [bases, kinds, licences, statuses] = filters.map((select) =>
    values(select, select.name === "licence" ? 2 : 1));
  const rows = [];
  let loaded = 0;
  let failed = 0;
  let hasAll = false;
  let limit = PAGE;
  let scheduled = false;
  let focusNext = false;

  // Each script of the index calls this with its rows; see `shard.py` for what a row has.
  window.refinersCatalog = {
    add(first, batch) {
      batch.forEach((row, index) => {
        const [name, summary, kind, itsBases, itsLicences, status, path, aliases, isRestricted] = row;
        const names = `${name} ${aliases}`;
        rows.push({
          order: first + index, name, summary, kind, bases: itsBases, licences: itsLicences,
          status, path, isRestricted, lower: name.toLowerCase(), names: names.toLowerCase(),
          text: `${names} ${kinds[kind]} ${summary} ${itsBases.map((base) => bases[base]).join(" ")}`
            .toLowerCase(),
        });
      });
    },
  };

  // The first script, which is small, is read with the page; the others when somebody searches.
  function load() {
    if (hasAll) return;
    hasAll = true;
    for (let number = 1; number < total; number += 1) loadOne(number);
  }

  function loadOne(number) {
    const script = document.createElement("script");
    script.src = `data/${number}.js`;
    script.async = true;
    script.onload = () => { loaded += 1; arrived(); };
    script.onerror = () => { failed += 1; arrived(); };
    document.head.append(script);
  }

  // Draws the first rows that match at once, and then again when all rows are there.
  function arrived() {
    if (loaded + failed === total || !hits.children.length) schedule();
  }

  function wanted() {
    const [base, kind, licence, status] = filters.map((select) => select.value);
    const any = bases.indexOf("any");
    const numbers = {
      base: bases.indexOf(base), kind: kinds.indexOf(kind), licence: licences.indexOf(licence),
      status: statuses.indexOf(status),
    };
    return {
      terms: query.value.toLowerCase().split(/\s+/).filter(Boolean),
      fits: (row) =>
        (!base || row.bases.includes(numbers.base) || row.bases.includes(any)) &&
        (!kind || row.kind === numbers.kind) &&
        (!licence || (licence === "*commercial" ? !row.isRestricted
          : row.licences.includes(numbers.licence))) &&
        (!status || row.status === numbers.status),
      isEmpty: !query.value.trim() && !base && !kind && !licence && !status,
    };
  }

  // The smaller, the better: a name that is the text, begins with it, or has it; the rest.
  function rank(row, terms) {
    if (!terms.length) return 3;
    if (row.lower === terms.join("-")) return 0;
    if (row.lower.startsWith(terms[0]) && terms.every((term) => row.names.includes(term))) return 1;
    return terms.every((term) => row.names.includes(term)) ? 2 : 3;
  }

  function draw(row) {
    const item = card.content.cloneNode(true);
    const link = item.querySelector("a");
    link.textContent = row.name;
    link.href = `plugin/${row.path}.html`;
    item.querySelector(".summary").textContent = row.summary;
    const kind = item.querySelector(".kind");
    kind.textContent = kinds[row.kind];
    kind.classList.add(`kind-${kinds[row.kind].replace(/[^a-z0-9-]/g, "")}`);
    item.querySelector(".bases").textContent = row.bases.map((base) => bases[base]).join(" · ");
    item.querySelector(".terms").hidden = !row.isRestricted;
    const status = item.querySelector(".status");
    if (row.status) {
      status.hidden = false;
      status.textContent = statuses[row.status];
      status.classList.add(`status-${statuses[row.status]}`);
    }
    return item;
  }

  function render() {
    scheduled = false;
    const { terms, fits, isEmpty } = wanted();
    hits.dataset.query = asText();
    results.hidden = isEmpty;
    browse.hidden = !isEmpty;
    if (isEmpty) {
      count.textContent = "";
      hits.replaceChildren();
      more.hidden = true;
      return;
    }
    const found = rows.filter((row) => fits(row) && terms.every((term) => row.text.includes(term)));
    for (const row of found) row.rank = rank(row, terms);
    found.sort((a, b) => a.rank - b.rank || a.order - b.order);
    const held = hits.contains(document.activeElement) ? document.activeElement.href : "";
    hits.replaceChildren(...found.slice(0, limit).map(draw));
    if (held) ([...hits.querySelectorAll("a")].find((link) => link.href === held) ?? query).focus();
    more.hidden = found.length <= limit;
    if (focusNext) {
      focusNext = false;
      hits.children[limit - PAGE]?.querySelector("a").focus();
    }
    const isPartial = loaded + failed < total;
    if (failed) count.textContent = `${found.length} found; a part of the index could not be read`;
    else if (isPartial && !found.length) count.textContent = "Searching…";
    else if (!found.length) count.textContent = "Nothing matches. Try fewer words or filters.";
    else count.textContent = `${found.length} found${isPartial ? " so far" : ""}`;
  }

  function schedule() {
    if (!scheduled) {
      scheduled = true;
      queueMicrotask(render);  // before the next script is read
    }
  }

  // The address has the query, so that a search can be linked and comes back with the back button.
  function asText() {
    const words = new URLSearchParams();
    if (query.value.trim()) words.set("q", query.value.trim());
    for (const select of filters) if (select.value) words.set(select.name, select.value);
    return words.toString();
  }

  function remember() {
    const text = asText();
    history.replaceState(null, "", text ? `?${text}` : location.pathname.replace(/.*\//, "") || ".");
  }

  function recall() {
    const words = new URLSearchParams(location.search);
    query.value = (words.get("q") || "").slice(0, 200);
    for (const select of filters) {
      const value = words.get(select.name) || "";
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    }
    if (!wanted().isEmpty) {
      load();
      schedule();
    }
  }

  function changed() {
    load();
    limit = PAGE;
    remember();
    schedule();
  }

  form.hidden = false;
  form.addEventListener("focusin", load);
  form.addEventListener("pointerenter", load);
  query.addEventListener("input", changed);
  for (const select of filters) select.addEventListener("change", changed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    hits.querySelector("a")?.focus();
  });
  form.addEventListener("reset", () => {
    setTimeout(() => { changed(); query.focus(); });
  });
  more.addEventListener("click", () => {
    limit += PAGE;
    focusNext = true;
    schedule();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      query.focus();
      query.select();
      return;
    }
    const links = [...hits.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && (at >= 0 || (step > 0 && document.activeElement === query)) && links.length) {
      event.preventDefault();
      (links[at + step] ?? (at + step < 0 ? query : links[at])).focus();
    } else if (event.key === "Escape" && at >= 0) {
      query.focus();
    } else if (event.key === "Escape" && document.activeElement === query && query.value) {
      query.value = "";
      changed();
    }
  });
  window.addEventListener("popstate", recall);
  if (total) loadOne(0);
  recall();
})();
