// The page at /docs: Swagger UI over this service's own document, with the key typed in at /.

import { apiKey, call } from "./service.js";

const place = document.getElementById("docs");
try {
  const spec = await (await call("openapi.json")).json();
  document.title = `${spec.info.title} · API documentation`;
  window.SwaggerUIBundle({
    spec,
    domNode: place,
    deepLinking: true,
    tryItOutEnabled: true,
    requestInterceptor: (request) => {
      if (apiKey.get()) request.headers.Authorization = `Bearer ${apiKey.get()}`;
      return request;
    },
  });
} catch (fault) {
  const words = document.createElement("p");
  words.setAttribute("role", "alert");
  words.textContent = `${fault.message} `;
  if (fault.status === 401) {
    const link = document.createElement("a");
    link.href = "./";
    link.textContent = "Enter an API key on the start page, then come back.";
    words.append(link);
  }
  place.replaceChildren(words);
}
